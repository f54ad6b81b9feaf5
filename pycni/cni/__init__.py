"""The CNI contract: what runtimes send and get, and the plugin that they execute."""
