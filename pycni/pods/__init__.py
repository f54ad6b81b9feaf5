"""What a pod has on its node: link, lease, endpoints, rules, host ports, rate limits."""
