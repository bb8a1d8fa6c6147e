import { mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "./components.ts";
import { exec, type ExecOptions } from "./exec.ts";

/** Builds Dockerfiles without a daemon; its images stay in a folder of its own. */
export interface Buildah {
  /** Runs one command of buildah, and gives what it printed. */
  run(args: readonly string[], options?: ExecOptions): Promise<string>;
}

/**
 * @param home a folder for images, layers and settings
 * @param runc the program that runs what a Dockerfile runs
 */
export async function createBuildah(component: Component, runc: string, home: string): Promise<Buildah> {
  await mkdir(home, { recursive: true });
  const policy = path.join(home, "policy.json");
  await writeFile(policy, JSON.stringify({ default: [{ type: "insecureAcceptAnything" }] }));
  const registries = path.join(home, "registries.conf");
  await writeFile(registries, "unqualified-search-registries = []\n");
  const storage = path.join(home, "storage.conf");
  const folders = { graphroot: path.join(home, "graph"), runroot: path.join(home, "run") };
  const lines = Object.entries({ driver: "overlay", ...folders }).map(
    ([key, value]) => `${key} = "${value}"`,
  );
  await writeFile(storage, `[storage]\n${lines.join("\n")}\n`);
  const env = {
    ...component.env,
    CONTAINERS_STORAGE_CONF: storage,
    CONTAINERS_REGISTRIES_CONF: registries,
    // Its own kind, `chroot`, would look for the shared libraries of buildah where they are not.
    BUILDAH_ISOLATION: "oci",
    BUILDAH_RUNTIME: runc,
  };
  const signed = new Set(["bud", "commit", "from"]);
  return {
    async run([command = "", ...args], options = {}) {
      const flags = signed.has(command) ? ["--signature-policy", policy] : [];
      const argv = [component.bin("buildah"), command, ...flags, ...args];
      return (await exec(argv, { env, timeoutMs: 300_000, ...options })).stdout.trim();
    },
  };
}

const NODE = "/opt/node";

/**
 * Stands in for an image with Node.js of a registry that no test asks: this machine's programs and settings, with a Node.js
 * of one's own and what npm has downloaded before. Gives the flags by which a build gets what the image itself does not hold.
 * @param node the program
 */
export async function makeNodeBase(
  buildah: Buildah,
  { name, node, home }: { readonly name: string; readonly node: string; readonly home: string },
): Promise<readonly string[]> {
  const root = path.join(home, "base");
  for (const folder of ["usr", "etc", "tmp", "var/tmp", "root/.npm", NODE]) {
    await mkdir(path.join(root, folder), { recursive: true });
  }
  for (const link of ["bin", "sbin", "lib", "lib64"]) await symlink(`usr/${link}`, path.join(root, link));
  const container = await buildah.run(["from", "scratch"]);
  await buildah.run(["add", "--quiet", container, root, "/"]);
  const env = { ...waysToRegistries(), PATH: `${NODE}:/usr/local/bin:/usr/bin:/usr/sbin` };
  const settings = Object.entries(env).map(([key, value]) => `--env=${key}=${value}`);
  await buildah.run(["config", ...settings, container]);
  await buildah.run(["commit", "--quiet", container, name]);
  const cache = (await exec(["npm", "config", "get", "cache"])).stdout.trim();
  await mkdir(cache, { recursive: true });
  const volumes = ["/usr:/usr:ro", "/etc:/etc:ro", `${path.dirname(node)}:${NODE}:ro`, `${cache}:/root/.npm`];
  return volumes.map((volume) => `--volume=${volume}`);
}

/** Proxies, and authorities of certificates. */
function waysToRegistries(): Record<string, string> {
  const wanted = /^((https?|no)_proxy|node_extra_ca_certs|ssl_cert_(file|dir))$/i;
  return Object.fromEntries(
    Object.entries(process.env).filter((one): one is [string, string] => wanted.test(one[0])),
  );
}
