"""pycni: a Kubernetes network plugin whose dataplane is eBPF (docs/architecture.md)."""
