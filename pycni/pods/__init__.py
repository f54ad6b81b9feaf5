"""What a pod has on its node: link, lease, endpoints, source rules, host ports, rate limits."""
