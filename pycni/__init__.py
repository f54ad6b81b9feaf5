"""pycni: a Kubernetes network plugin whose dataplane is eBPF (docs/architecture.md)."""

__version__ = "0.1.0"
