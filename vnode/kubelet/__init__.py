"""What the home apiserver asks of a kubelet, on one TLS port per virtual node. Sees peers only through `Locate`."""
