"""What people ask of running virtual nodes: read-only commands, with their own kubeconfig and rights."""
