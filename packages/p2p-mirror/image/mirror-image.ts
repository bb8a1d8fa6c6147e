import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { bundle, PACKAGE } from "./bundle.ts";
import { CA_FILE, debian, type Pins } from "./debian.ts";
import { directory, file, link, type Entry } from "./entries.ts";
import { licencesIn, npmPackages } from "./npm.ts";
import type { Image } from "./oci-layout.ts";
import { sbomOf } from "./sbom.ts";
import { startLine } from "./start-line.ts";

export interface ImageOptions {
  readonly checkout: string;
  /** Debian packages as new as there are, where those of `debian.json` are gone. Default: that is an error. */
  readonly newest?: boolean;
  readonly say?: (line: string) => void;
}

export interface MirrorImage {
  readonly image: Image;
  /** CycloneDX, as it lies in the image. */
  readonly sbom: string;
}

export const NAME = "ghcr.io/p2p-mirror/p2p-mirror";
const HOME = "usr/lib/p2p-mirror";
/** Folder of the bundle. */
export const PROGRAM = `${HOME}/program`;
export const SBOM_FILE = "usr/share/sbom/p2p-mirror.cdx.json";

/** The container image: Node.js, the libraries it is linked with, and the program as a bundle. */
export async function mirrorImage(options: ImageOptions): Promise<MirrorImage> {
  const { checkout } = options;
  const manifest: { version: string; license: string } = JSON.parse(
    await readFile(join(checkout, PACKAGE, "package.json"), "utf8"),
  );
  const { version, license } = manifest;
  const pins: Pins = JSON.parse(await readFile(join(import.meta.dirname, "debian.json"), "utf8"));
  const system = await debian({
    folder: join(checkout, ".components"),
    pins,
    newest: options.newest ?? false,
    say: options.say ?? (() => undefined),
  });
  const node = await nodeOf(checkout);
  const program = await bundle(checkout);
  const npm = await npmPackages(checkout, program.packages);
  const sbom = sbomOf({
    name: "p2p-mirror",
    version,
    licence: license,
    node: node.version,
    suite: system.suite,
    debian: system.packages,
    npm,
  });
  const start = await startLine();
  const annotations = {
    "org.opencontainers.image.title": "p2p-mirror",
    "org.opencontainers.image.description": "An image mirror that runs on every node of a Kubernetes cluster",
    "org.opencontainers.image.version": version,
    "org.opencontainers.image.licenses": license,
  };
  return {
    sbom,
    image: {
      name: NAME,
      tag: `v${version}`,
      architecture: "amd64",
      layers: [
        {
          what: `Debian ${system.suite}: libraries, certificates`,
          entries: [...SKELETON, ...system.entries],
        },
        { what: `Node.js ${node.version}`, entries: node.entries },
        {
          what: `p2p-mirror ${version}`,
          entries: [
            file(`${HOME}/package.json`, JSON.stringify({ name: "p2p-mirror", version, type: "module" })),
            ...(await page(join(checkout, PACKAGE, "page"))),
            ...programFiles(program.files),
            link("usr/bin/p2p-mirror", `../lib/p2p-mirror/program/main.js`),
            ...npm.flatMap(({ licences }) => licences),
            ...(await licencesIn(checkout, "usr/share/licenses/p2p-mirror", license)),
            file(SBOM_FILE, sbom),
          ],
        },
      ],
      run: {
        // Root: containerd's socket and its hosts.toml files are root's, and no other user may open them. It needs none
        // of root's capabilities; the tests run it without any.
        User: "0:0",
        Env: Object.entries({ PATH: "/usr/bin", ...start.env, SSL_CERT_FILE: `/${CA_FILE}` }).map(
          ([name, value]) => `${name}=${value}`,
        ),
        Entrypoint: ["/usr/bin/node", "--use-openssl-ca", ...start.flags, `/${PROGRAM}/main.js`],
        Cmd: ["serve"],
        WorkingDir: "/",
        Labels: annotations,
      },
      annotations,
    },
  };
}

/** What programs expect of any root file system, and where the Pod mounts what it brings. */
const SKELETON: readonly Entry[] = [
  file("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"),
  file("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
  file("etc/nsswitch.conf", "hosts: files dns\n"),
  directory("etc/p2p-mirror"),
  directory("run"),
  directory("tmp", 0o1777),
  directory("var/lib/p2p-mirror", 0o700),
];

/** The files of a bundle, where the image has its program. */
export const programFiles = (files: ReadonlyMap<string, Buffer>): Entry[] =>
  [...files].map(([name, content]) => programFile(name, content));

/** `kubectl exec … -- p2p-mirror doctor` starts the file itself: commands do not need the flags of the daemon. */
function programFile(name: string, content: Buffer): Entry {
  const path = `${PROGRAM}/${name}`;
  if (name !== "main.js") return file(path, content);
  const body = content.subarray(content.indexOf("\n") + 1);
  return file(path, Buffer.concat([Buffer.from("#!/usr/bin/node\n"), body]), true);
}

/** The files of the status page, which a browser takes as they are. */
async function page(folder: string): Promise<Entry[]> {
  const names = (await readdir(folder)).filter((name) => /\.(html|css|js)$/.test(name));
  return Promise.all(
    names.map(async (name) => file(`${HOME}/page/${name}`, await readFile(join(folder, name)))),
  );
}

/** The binary of the development dependency `node`, which everything was tested with. */
async function nodeOf(
  checkout: string,
): Promise<{ readonly version: string; readonly entries: readonly Entry[] }> {
  const home = join(checkout, "node_modules/node");
  const { version }: { version: string } = JSON.parse(await readFile(join(home, "package.json"), "utf8"));
  return {
    version,
    entries: [
      file("usr/bin/node", await readFile(join(home, "bin/node")), true),
      // npm takes the folder in which it came away when it installs something else; a test compares the two.
      file("usr/share/licenses/node/LICENSE", await readFile(join(import.meta.dirname, "node-LICENSE"))),
    ],
  };
}
