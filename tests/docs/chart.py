"""What the Helm chart shares with `deploy/base`, as templates: the same text, for the namespace of the release."""

from collections.abc import Mapping
from pathlib import Path

SERVE = "  resources: [virtualnodes]\n"
NODES = "  {{- with .Values.nodes }}\n  resourceNames: {{ toJson . }}\n  {{- end }}\n"


def chart(deploy: Path, made: Mapping[str, str]) -> dict[Path, str]:
    """The chart's files that are made from those of `base`, some of which are `made`, too."""
    base = {
        path: (deploy / "base" / path).read_text() for path in ("guard.yaml", "admission-policy.yaml", "network.yaml")
    }
    base["rbac.yaml"] = made["base/rbac.yaml"].replace(SERVE, SERVE + NODES)
    templates = {
        deploy / "chart" / "templates" / path: text.replace("vnode-system", "{{ .Release.Namespace }}")
        for path, text in base.items()
    }
    return templates | {deploy / "chart" / "crds" / "crd.yaml": made["base/crd.yaml"]}
