/** What the tests, the bench and the demo run, and where each can come from. */
import { kubernetesRecipe } from "./kubernetes.ts";

export const COMPONENT_NAMES = [
  "containerd-1.6",
  "containerd-1.7",
  "containerd-2.1",
  "containerd-2.x",
  "docker-registry",
  "distribution",
  "skopeo",
  "buildah",
  "oras",
  "crane",
  "oci-conformance",
  "kubernetes",
  "etcd",
  "coredns",
  "cni-plugins",
  "network-policy",
  "iptables",
  "catatonit",
  "busybox",
  "chromium",
] as const;
export type ComponentName = (typeof COMPONENT_NAMES)[number];

export interface DebianSource {
  readonly suite: string;
  readonly packages: readonly string[];
  /** Packages with shared libraries of the binaries, used where the system lacks some. */
  readonly libraries?: readonly string[];
}

export interface GoSource {
  /** Folder under test/rig/go with go.mod and go.sum. */
  readonly module: string;
  /** Import paths; each becomes a binary named by its last element. */
  readonly packages: readonly string[];
  readonly ldflags: string;
  /** Packages compiled at once; default 1, out of politeness. */
  readonly parallel?: number;
}

export interface Recipe {
  /** Only a bench asks for it: it is not brought before the tests start. */
  readonly onDemand?: boolean;
  /** Programs that make the component; the first one tells the version. */
  readonly binaries: readonly string[];
  /** Those of them that are good to have: pulls, also by CRI, need no runc. */
  readonly optional?: readonly string[];
  /** What `<first binary> <args>` must print; the first group is the version. */
  readonly version?: { readonly args: readonly string[]; readonly pattern: RegExp };
  /** Tried in this order: Go modules, Debian packages, PATH. */
  readonly go?: GoSource;
  readonly debian?: readonly DebianSource[];
  /** More folders of a package with programs, before `usr/bin` and so on. */
  readonly folders?: readonly string[];
  /** Other names of the programs on systems that are not Debian. */
  readonly aliases?: Readonly<Record<string, string>>;
}

/** bookworm's 1.1.5 runs under every containerd here and needs no newer C library; trixie's and later ones do. */
const RUNC: DebianSource = { suite: "bookworm", packages: ["runc"], libraries: ["libseccomp2"] };

const V2 = "github.com/containerd/containerd/v2";
const SHIM = "containerd-shim-runc-v2";

const goContainerd = (module: string, version: string): GoSource => ({
  module,
  packages: [`${V2}/cmd/containerd`, `${V2}/cmd/ctr`, `${V2}/cmd/${SHIM}`],
  ldflags: `-s -w -X ${V2}/version.Version=${version}`,
});

const containerd = (series: RegExp, debianSuite: string, go?: GoSource): Recipe => ({
  binaries: ["containerd", "ctr", SHIM, "runc"],
  optional: ["runc"],
  // containerd github.com/containerd/containerd/v2 v2.1.9 <revision>
  version: { args: ["--version"], pattern: series },
  debian: [{ suite: debianSuite, packages: ["containerd"] }, RUNC],
  ...(go === undefined ? {} : { go }),
});

/** What it is linked with, and what that is linked with; no drivers, no desktop. */
const CHROMIUM_LIBRARIES = (
  "fontconfig-config fonts-dejavu-core libasound2 libasyncns0 libatk1.0-0 libatspi2.0-0 libblkid1 libbrotli1 libbsd0 " +
  "libbz2-1.0 libcap2 libdav1d6 libdbus-1-3 libdouble-conversion3 libdrm2 libexpat1 libffi8 libflac12 libfontconfig1 " +
  "libfreetype6 libgbm1 libgcrypt20 libglib2.0-0 libgpg-error0 libgraphite2-3 libharfbuzz-subset0 libharfbuzz0b " +
  "libjpeg62-turbo liblz4-1 liblzma5 libmd0 libminizip1 libmount1 libmp3lame0 libmpg123-0 libnspr4 libnss3 libogg0 " +
  "libopenh264-7 libopus0 libpcre2-8-0 libpng16-16 libpulse0 libselinux1 libsndfile1 libsqlite3-0 libsystemd0 libudev1 " +
  "libuuid1 libvorbis0a libvorbisenc2 libwayland-server0 libx11-6 libxau6 libxcb-randr0 libxcb1 libxcomposite1 " +
  "libxdamage1 libxdmcp6 libxext6 libxfixes3 libxi6 libxkbcommon0 libxnvctrl0 libxrandr2 libxrender1 libzstd1 zlib1g"
).split(" ");

/** What programs that share `containers/image` and its storage are linked with. */
const CONTAINERS_LIBRARIES = ["libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1"];

export const RECIPES: Readonly<Record<ComponentName, Recipe>> = {
  "containerd-1.6": containerd(/ v?(1\.6\.\S+)/, "bookworm"),
  "containerd-1.7": containerd(/ v?(1\.7\.\S+)/, "trixie"),
  // The newest releases of the Go module; go.mod pins the same ones.
  "containerd-2.1": containerd(/ v?(2\.1\.\S+)/, "forky", goContainerd("containerd-2.1", "v2.1.9")),
  "containerd-2.x": containerd(/ v?(2\.\d+\.\S+)/, "forky", goContainerd("containerd-2.x", "v2.4.2")),
  "docker-registry": {
    binaries: ["docker-registry"],
    version: { args: ["--version"], pattern: / v?(2\.\S+)/ },
    debian: [{ suite: "bookworm", packages: ["docker-registry"] }],
    aliases: { "docker-registry": "registry" },
  },
  // The same, three years newer: as a pull-through cache it fetches a blob once, Debian's twice.
  distribution: {
    onDemand: true,
    binaries: ["registry"],
    version: { args: ["--version"], pattern: / v?(3\.\S+)/ },
    go: {
      module: "distribution",
      packages: ["github.com/distribution/distribution/v3/cmd/registry"],
      ldflags: "-s -w",
      parallel: 2,
    },
  },
  skopeo: {
    binaries: ["skopeo"],
    version: { args: ["--version"], pattern: /version (\S+)/ },
    debian: [
      {
        suite: "bookworm",
        packages: ["skopeo"],
        libraries: CONTAINERS_LIBRARIES,
      },
    ],
  },
  // Builds a Dockerfile without a daemon.
  buildah: {
    binaries: ["buildah"],
    version: { args: ["--version"], pattern: /version (\S+)/ },
    debian: [
      {
        suite: "bookworm",
        packages: ["buildah"],
        libraries: CONTAINERS_LIBRARIES,
      },
    ],
  },
  oras: {
    binaries: ["oras"],
    version: { args: ["version"], pattern: /Version:\s+(\S+)/ },
    debian: [{ suite: "forky", packages: ["oras"] }],
  },
  crane: {
    binaries: ["crane"],
    // Debian's build does not know its own version.
    version: { args: ["version"], pattern: /could not determine|(\S+)/ },
    debian: [{ suite: "forky", packages: ["crane"] }],
  },
  "oci-conformance": {
    binaries: ["conformance"],
    go: {
      module: "oci-conformance",
      packages: ["github.com/opencontainers/distribution-spec/conformance"],
      ldflags: "-s -w",
    },
  },
  kubernetes: kubernetesRecipe(process.env["KUBERNETES_RELEASE"]),
  etcd: {
    binaries: ["etcd"],
    version: { args: ["--version"], pattern: /etcd Version: (3\.[5-9]\.\S+)/ },
    debian: [{ suite: "trixie", packages: ["etcd-server"] }],
  },
  coredns: {
    binaries: ["coredns"],
    version: { args: ["-version"], pattern: /CoreDNS-(\S+)/ },
    go: { module: "coredns", packages: ["."], ldflags: "-s -w" },
  },
  "cni-plugins": {
    // The first tells no other program's version: it is one of the container network plugins alone.
    binaries: ["host-local", "ptp", "loopback"],
    debian: [{ suite: "bookworm", packages: ["containernetworking-plugins"] }],
    folders: ["usr/lib/cni"],
  },
  // Enforces NetworkPolicies with the programs of iptables.
  "network-policy": {
    binaries: ["network-policy"],
    go: { module: "network-policy", packages: ["."], ldflags: "-s -w" },
  },
  iptables: {
    binaries: ["iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ipset"],
    version: { args: ["--version"], pattern: /v(\S+) \(nf_tables\)/ },
    debian: [
      {
        suite: "bookworm",
        packages: ["iptables", "ipset"],
        libraries: ["libipset13", "libip4tc2", "libip6tc2", "libmnl0", "libnftnl11", "libxtables12"],
      },
    ],
  },
  catatonit: {
    binaries: ["catatonit"],
    version: { args: ["--version"], pattern: /version (\S+)/ },
    debian: [{ suite: "bookworm", packages: ["catatonit"] }],
  },
  busybox: {
    binaries: ["busybox"],
    version: { args: ["--help"], pattern: /BusyBox v(\S+)/ },
    debian: [{ suite: "bookworm", packages: ["busybox-static"] }],
  },
  chromium: {
    binaries: ["chromium-headless-shell"],
    version: { args: ["--version"], pattern: /(\d+\.\d+\.\d+\.\d+)/ },
    debian: [
      {
        suite: "bookworm",
        packages: ["chromium-headless-shell", "chromium-common"],
        libraries: CHROMIUM_LIBRARIES,
      },
    ],
    // Beside what it reads; in usr/bin is a script that looks for it where the package would be installed.
    folders: ["usr/lib/chromium"],
    aliases: { "chromium-headless-shell": "chromium" },
  },
};
