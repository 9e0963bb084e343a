"""The virtual Node at home: what it says of the peer, its Lease, the probe that makes it Ready, and its removal.

requests    what one Pod asks for (pure)
capacity    what the peer has, and has left, for our Pods (pure)
manifest    the Node we want (pure)
patches     Node seen and Node wanted -> the patches between them (pure)
heartbeat   the Lease: vnode lives; the probe: the peer answers
controller  registers the Node and keeps it as wanted
removal     drains the Node and deletes it
"""
