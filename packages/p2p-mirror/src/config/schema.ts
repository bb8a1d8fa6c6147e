import type { GroupSchema } from "@p2p-mirror/shared/config";

export const ENV_PREFIX = "P2P_MIRROR_";

/** How one registry is reached and what is kept of it: the keys that containerd's hosts.toml has, and three of the cache. */
const REGISTRY_SCHEMA = {
  type: "object",
  additionalProperties: false,
  properties: {
    url: {
      type: "string",
      format: "http-url",
      "x-placeholder": "URL",
      "x-default": "https:// and the registry's name",
      description: "Where the registry is really asked. Plain http and a path prefix are allowed.",
    },
    ca: {
      type: "array",
      items: { type: "string", format: "path" },
      "x-placeholder": "FILE",
      description:
        "PEM files of certificate authorities that are trusted for this registry, beside the system's.",
    },
    skip_verify: {
      type: "boolean",
      default: false,
      description:
        "Accept any certificate of this registry. Digests are verified all the same, tags are not.",
    },
    headers: {
      type: "object",
      additionalProperties: { type: "string", format: "header-value", "x-sensitive": true },
      "x-key-format": "header-name",
      "x-placeholder": "NAME: VALUE",
      description: "Headers that are sent with every request to this registry. They never follow a redirect.",
    },
    client_cert: {
      type: "string",
      format: "path",
      "x-placeholder": "FILE",
      description: "PEM file with the certificate that this node shows to the registry; needs client_key.",
    },
    client_key: {
      type: "string",
      format: "path",
      "x-placeholder": "FILE",
      description: "PEM file with the key of client_cert.",
    },
    mirror: {
      type: "boolean",
      default: true,
      description:
        "False leaves this registry alone: what is asked of it is declined, so that containerd asks the registry itself, and with hosts_dir its hosts.toml does not name the mirror.",
    },
    override_path: {
      type: "boolean",
      default: false,
      description: "The path of the URL is the whole API root: do not add /v2 to it.",
    },
    size: {
      type: ["string", "integer"],
      format: "size",
      "x-placeholder": "SIZE",
      "x-default": "no limit of its own",
      description: "At most this much of the cache is for this registry.",
    },
    ttl: {
      type: "string",
      format: "duration-or-off",
      "x-placeholder": "DURATION",
      "x-default": "off",
      description: "Content of this registry goes when it was not used for so long. `off` keeps it.",
    },
    off: {
      type: "boolean",
      default: false,
      description: "Keep nothing of this registry in the cache; it is still served through.",
    },
  },
} as const satisfies GroupSchema;

/** Every setting of `p2p-mirror serve`: the one place where its name, type, default and help are written. */
export const MIRROR_SCHEMA = {
  type: "object",
  additionalProperties: false,
  properties: {
    registry_listen: {
      type: "string",
      format: "listen-address",
      default: "127.0.0.1:24220",
      "x-placeholder": "HOST:PORT",
      description:
        "Where containerd and other clients of this node ask for images (HTTP). The endpoint knows no users: an address beyond loopback is allowed, and every start warns of it.",
    },
    peer_listen: {
      type: "string",
      format: "listen-address",
      default: ":24221",
      "x-placeholder": "HOST:PORT",
      "x-default": "all addresses with a cluster secret, 127.0.0.1 without, port 24221",
      description: "Where other mirrors fetch content from this one (HTTPS, mutual TLS).",
    },
    p2p_listen: {
      type: "string",
      format: "listen-address",
      default: ":24222",
      "x-placeholder": "HOST:PORT",
      "x-default": "all addresses with a cluster secret, 127.0.0.1 without, port 24222",
      description: "Where other mirrors ask who has what (libp2p over TCP).",
    },
    admin_listen: {
      type: "string",
      format: "listen-address",
      default: "127.0.0.1:24223",
      "x-placeholder": "HOST:PORT",
      description:
        "Where /livez, /readyz, /metrics and /status are (HTTP, read only). An address beyond loopback is allowed, and every start warns of it.",
    },
    metrics_listen: {
      type: "string",
      format: "listen-address",
      "x-placeholder": "HOST:PORT",
      "x-default": "none: on admin_listen only",
      description:
        "Where /metrics is besides, for a Prometheus that is not on this node (HTTP). Without a host: all addresses. What is counted names registries and no images, and of nodes those alone that signed wrong bytes.",
    },
    advertise_address: {
      type: "string",
      format: "address",
      "x-placeholder": "IP",
      "x-default": "the listen address; when that is all of them, this host's address on its default route",
      description: "The address of this node that other mirrors are told to connect to.",
    },
    data_dir: {
      type: "string",
      format: "path",
      default: "/var/lib/p2p-mirror",
      "x-placeholder": "DIR",
      description:
        "Where the cache, the node's identity and the peers it knew last are kept. One process per directory.",
    },
    cache_size: {
      type: ["string", "integer"],
      format: "size",
      default: "20GiB",
      "x-placeholder": "SIZE",
      description: "Bound of the cache; what was not used for longest goes first.",
    },
    cache_min_free: {
      type: ["string", "integer"],
      format: "amount",
      default: "10%",
      "x-placeholder": "SHARE",
      description: "Free space that the cache leaves on its file system: a share of it, or a size.",
    },
    containerd_socket: {
      type: "string",
      format: "optional-path",
      default: "/run/containerd/containerd.sock",
      "x-placeholder": "PATH",
      description: "The containerd whose content this node also serves (it is only read), or `none`.",
    },
    containerd_namespace: {
      type: "string",
      format: "containerd-namespace",
      default: "k8s.io",
      "x-placeholder": "NAME",
      description: "The containerd namespace whose content is served.",
    },
    containerd_config: {
      type: "string",
      format: "path",
      default: "/etc/containerd/config.toml",
      "x-placeholder": "FILE",
      description:
        "containerd's configuration, which the doctor reads with what it imports: whether hosts.toml files are in force, and layers are kept. k3s and RKE2 have theirs in agent/etc/containerd below their data directory.",
    },
    bootstrap: {
      type: "array",
      items: { type: "string", format: "host-port" },
      "x-placeholder": "HOST:PORT",
      description:
        "The p2p_listen address of another mirror, to find the cluster by. A DNS name means all its addresses and is asked again later. Peers of the last run are tried too.",
    },
    bootstrap_service: {
      type: "string",
      format: "service",
      "x-placeholder": "NAMESPACE/NAME",
      description:
        "A Kubernetes Service whose EndpointSlices list the other mirrors; its port named `p2p` leads to their p2p_listen. Needs kubernetes_api, and a ServiceAccount that may list endpointslices in that namespace. Asked at a start, while this node is alone, and every ten minutes.",
    },
    kubernetes_api: {
      type: "string",
      format: "kubernetes-api",
      "x-placeholder": "HOST:PORT",
      description:
        "The API server of the Kubernetes cluster; in a Pod `$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)`. Nothing is asked of it but what bootstrap_service and node_condition need.",
    },
    kubernetes_account: {
      type: "string",
      format: "path",
      default: "/var/run/secrets/kubernetes.io/serviceaccount",
      "x-placeholder": "DIR",
      description:
        "Directory with `token` and `ca.crt` of the ServiceAccount, read again for each request to kubernetes_api.",
    },
    cluster_secret_file: {
      type: "array",
      items: { type: "string", format: "path" },
      "x-placeholder": "FILE",
      description:
        "A secret that the mirrors of a cluster share, 32 random bytes or more. With several, the first is used and all are accepted, so that it can be changed without an outage. A directory stands for all files in it, in the order of their names.",
    },
    insecure_open_mesh: {
      type: "boolean",
      default: false,
      description:
        "Allow peer_listen and p2p_listen beyond loopback without a cluster secret. Whoever reaches them can then join, and fetch everything that is held.",
    },
    zone: {
      type: "string",
      format: "zone",
      default: "",
      "x-placeholder": "NAME",
      "x-default": "unknown: all nodes are equally near",
      description:
        "Where this node is. Nodes of one zone give each other pieces first, and each byte enters a zone once.",
    },
    max_upstream_fetchers: {
      type: ["string", "integer"],
      format: "count",
      default: "8",
      "x-placeholder": "COUNT",
      description:
        "How many nodes may fetch different parts of one blob from its registry at the same time, as far as this node coordinates it.",
    },
    limit_upstream: {
      type: ["string", "integer"],
      format: "rate",
      default: "off",
      "x-placeholder": "RATE",
      description:
        "At most so many bytes per second come from registries, such as `50MiB` (which is 419 Mbit/s); all pulls share them fairly. `off`: as fast as it goes. Several nodes that fetch one image have a limit each.",
    },
    limit_in: {
      type: ["string", "integer"],
      format: "rate",
      default: "off",
      "x-placeholder": "RATE",
      description: "At most so many bytes per second come from other mirrors, in the same form.",
    },
    limit_out: {
      type: ["string", "integer"],
      format: "rate",
      default: "off",
      "x-placeholder": "RATE",
      description: "At most so many bytes per second go to other mirrors, in the same form.",
    },
    access: {
      type: "string",
      enum: ["public", "open"],
      default: "public",
      "x-placeholder": "POLICY",
      description:
        "Which images are given out. `public`: what upstream gives to anybody; for others containerd is sent to upstream, with its credentials. What is checked is the name of the repository, not that a digest belongs to it: whoever knows the digest of a private image's blob that this node or a peer holds gets it under the name of any public repository. `open`: everything this mirror holds or can pull, to whoever asks on this node.",
    },
    upstream: {
      type: "array",
      items: { type: "string", format: "upstream" },
      "x-placeholder": "REGISTRY=URL",
      description: "Short form of `registries.REGISTRY.url`, and counts before it.",
    },
    registries: {
      type: "object",
      additionalProperties: REGISTRY_SCHEMA,
      "x-key-format": "registry",
      "x-placeholder": "REGISTRY",
      description:
        "Settings of single registries, by the name that image names begin with, such as docker.io.",
    },
    docker_config: {
      type: "string",
      format: "path",
      "x-placeholder": "FILE",
      description:
        "A docker config.json with this node's credentials for registries (auths, credHelpers, credsStore). A login goes to the registry it is for; to a host that is put in its place only when it is listed under that host. It is never sent over plain http beyond loopback.",
    },
    http_proxy: {
      type: "string",
      format: "proxy-url",
      "x-placeholder": "URL",
      "x-env": ["HTTP_PROXY", "http_proxy"],
      "x-sensitive": true,
      description: "Proxy for registries with http URLs.",
    },
    https_proxy: {
      type: "string",
      format: "proxy-url",
      "x-placeholder": "URL",
      "x-env": ["HTTPS_PROXY", "https_proxy"],
      "x-sensitive": true,
      description: "Proxy for registries with https URLs.",
    },
    proxy_bypass: {
      type: "string",
      "x-placeholder": "HOSTS",
      "x-env": ["NO_PROXY", "no_proxy"],
      description:
        "Hosts that are reached without a proxy: names, domains and addresses, with commas between them.",
    },
    hosts_dir: {
      type: "string",
      format: "path",
      "x-placeholder": "DIR",
      description:
        "containerd's config_path, the directory of hosts.toml files. While it serves, the mirror keeps itself first in each of them, and leaves all else there as it is (`p2p-mirror hosts remove` takes it out). What else is there also counts for the mirror itself: it asks the hosts and the server that are listed, in their order, with their certificates and headers, unless `registries` says where a registry is. For a file that it does not understand (`rewrite` of k3s, a CA that it cannot read) it asks nobody, and containerd goes on to the hosts in it. Default: none, for `p2p-mirror hosts install`.",
    },
    hosts_remove_on_exit: {
      type: "boolean",
      default: false,
      description:
        "Take the mirror out of the hosts.toml files in hosts_dir at the end, as `p2p-mirror hosts remove` does. Without it they go on to name a mirror that does not run, and containerd passes on to the next host at once.",
    },
    node_condition: {
      type: "string",
      format: "node",
      "x-placeholder": "NODE",
      "x-default": "none: Kubernetes is told nothing",
      description:
        "Name of this Node of Kubernetes, which then has what the doctor finds as its condition ImageMirrorInForce, and an Event when that changes. Needs kubernetes_api, and a ServiceAccount that may patch nodes/status and create events in the namespace default.",
    },
    log_level: {
      type: "string",
      enum: ["error", "warn", "info", "debug", "trace", "silent"],
      default: "info",
      "x-placeholder": "LEVEL",
      description:
        "How much is logged, as JSON lines on standard error. `debug` has a line for each request.",
    },
  },
} as const satisfies GroupSchema;
