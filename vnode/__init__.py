"""vnode: a cluster can simply be a node. The map of the house.

Rooms, top first; imports go down only (`lint-imports`), `|` are strangers:

    cli > app | check | diff | devcluster | join | observe > options > peers > kubelet > pods | node | reflect
        > rules > config | roles > policy > schema | rights > runtime > kube > telemetry | names | errors

Pure modules, which decide and do no I/O: kube.{objects,podspec,syntax}, runtime.store, policy, schema, rules, rights,
roles, node.{manifest,capacity,images,requests,patches}, pods.{fields,shape,placement,translate,changes,status,plan},
reflect.kinds, kubelet.{exposition,health,measures,usage,usage_formats},
peers.{objects,status,tally,crd}, observe.{objects,states,hops,reports,trace,tables}.

Walks:
- Pod down: home watch -> kube.watch -> runtime.informer/store -> key -> queue -> pods.controller -> pods.plan
  -> pods.translate -> kube.client at the peer
- status up: peer watch (our origin labels) -> the same queue, the same plan -> pods.status -> patch at home
- log across: apiserver -> kubelet.server -> kubelet.auth -> Locate -> kubelet.logs -> kube.client.stream at the peer
- usage: metrics-server -> kubelet.server -> kubelet.reports -> kubelet.stats (once in 10 s) -> the peer's metrics API
  or its kubelets -> kubelet.measures -> kubelet.usage -> kubelet.usage_formats
- configuration: a file's peers, or Peer objects (home watch in kopf's thread -> peers.source -> peers.controller ->
  peers.objects, all at once) -> peers.fleet: start, stop, or stop and start single sessions; back as a Peer's status
  (peers.status). A deleted Peer goes by peers.departure, its finalizer last
- heartbeat, two facts: node.heartbeat renews the Lease (vnode lives) and probes the peer (it can be reached)

Field words: `local` is our cluster, `remote` the peer's; a mirror is the remote Pod that stands for a local one.
"""

__version__ = "0.1.0"
