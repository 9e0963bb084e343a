"""Real control planes, simulated nodes and a real kubelet on one machine.

For `vnode demo` and for the tests alike, so that what a reader tries and what CI proves is the same thing.
Not part of running vnode: nothing outside `vnode demo` and `tests/` imports it, and it imports no other room.
All of it is synchronous code: it starts processes, waits for them, and stops them.

    build         the binaries: found, or compiled once with Go from the module proxy
    pki           a CA, certificates and kubeconfig files
    processes     a group of child processes that cannot outlive us
    components    files and flags of etcd, kube-apiserver, kube-controller-manager, kube-scheduler
    controlplane  the four of them running
    kwok          simulated nodes and Pods in a control plane
    realnode      containerd and a kubelet: one node where containers truly run (root only)
    images        container images written without a registry, for realnode
    teardown      undoes a realnode, whoever died
    cluster       a control plane with its nodes, as one
    show          the demo's view of what happens
    demo          what `vnode demo` does
"""
