"""What Pods at the peer refer to: copied, and copied again when home's changes, while something there needs it."""
