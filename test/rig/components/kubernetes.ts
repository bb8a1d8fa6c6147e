import type { Recipe } from "./catalog.ts";

/** What the tests run on, by minor release; a folder with go.mod pins the same version. */
const RELEASES: Readonly<Record<string, { readonly version: string; readonly module: string }>> = {
  // The one that client libraries of today are generated from.
  "1.36": { version: "1.36.3", module: "kubernetes" },
  // Two behind it, as clusters are: `npm run test:matrix`.
  "1.34": { version: "1.34.4", module: "kubernetes-1.34" },
};

const PROGRAMS = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"];

/** Where Kubernetes keeps its version, which is stamped in by whoever links it. */
const STAMPED = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];

/**
 * How a minor release is made; the newest by default. Throws TypeError for one that is not here.
 * @param minor such as "1.34", the value of KUBERNETES_RELEASE
 */
export function kubernetesRecipe(minor = "1.36"): Recipe {
  const release = RELEASES[minor];
  if (release === undefined) {
    const known = Object.keys(RELEASES).join(", ");
    throw new TypeError(`KUBERNETES_RELEASE is ${JSON.stringify(minor)}; there are ${known}`);
  }
  return {
    binaries: PROGRAMS,
    version: {
      args: ["--version"],
      pattern: new RegExp(String.raw`^Kubernetes v(${minor.replace(".", String.raw`\.`)}\.\S+)`),
    },
    go: {
      module: release.module,
      packages: PROGRAMS.map((program) => `k8s.io/kubernetes/cmd/${program}`),
      ldflags: ldflags(release.version),
      // A quarter of an hour of CPU time.
      parallel: 2,
    },
  };
}

function ldflags(version: string): string {
  const [major, minor] = version.split(".");
  const set = { gitVersion: `v${version}`, gitMajor: major, gitMinor: minor, gitTreeState: "clean" };
  const stamps = STAMPED.flatMap((place) =>
    Object.entries(set).map(([name, value]) => `-X ${place}.${name}=${value}`),
  );
  return ["-s -w", ...stamps].join(" ");
}
