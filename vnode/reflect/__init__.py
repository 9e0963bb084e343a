"""Objects that Pods at the peer refer to, kept equal to home's for as long as something there needs them."""
