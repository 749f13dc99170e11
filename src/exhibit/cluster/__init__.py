"""The kind cluster: made, found again, mended and removed (`life`); spoken to (`connection`).

Every call names the cluster, by a kubeconfig of the engine's own and by the context in it: the user's current context
does not matter, and no other cluster is touched. Whether it is there is asked of the Docker engine each time. A call
that fails is looked into at once: the engine was stopped, the cluster deleted behind our back, a node does not answer.
"""

from exhibit.cluster.connection import NAMESPACE, Cluster
from exhibit.cluster.description import VARIABLE, default_name
from exhibit.cluster.life import check_tools, ensure, find, remove, remove_images
from exhibit.cluster.tools import engine
from exhibit.errors import ClusterError

__all__ = [
    "NAMESPACE",
    "VARIABLE",
    "Cluster",
    "ClusterError",
    "check_tools",
    "default_name",
    "engine",
    "ensure",
    "find",
    "remove",
    "remove_images",
]
