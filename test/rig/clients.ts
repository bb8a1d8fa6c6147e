import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "./components.ts";
import { exec } from "./exec.ts";
import { blobsOf, type Content, manifestsOf, sha256 } from "./images/content.ts";

export interface CopyOptions {
  /** skopeo, oras or crane. */
  readonly client: Component;
  /** host:port, plain HTTP. */
  readonly registry: string;
  readonly repository: string;
  /** Tag or digest. */
  readonly reference: string;
  /** OCI image layout to make; must not exist. */
  readonly layout: string;
}

/** Copies an image with all its platforms into an OCI image layout, by a client people use. */
export async function copyImage(options: CopyOptions): Promise<void> {
  const { client, registry, repository, reference, layout } = options;
  const image = `${registry}/${repository}${reference.includes(":") ? "@" : ":"}${reference}`;
  await exec([client.bin(client.name), ...argumentsOf(client.name, image, layout)], { env: client.env });
  if (client.name === "skopeo") await layoutOf(layout);
}

export interface ReadOptions {
  /** skopeo, oras or crane. */
  readonly client: Component;
  /** The OCI image layout to read. */
  readonly layout: string;
  /** As `org.opencontainers.image.ref.name` of its index.json has it. */
  readonly name: string;
  readonly digest: string;
  /** OCI image layout to make; must not exist. crane cannot copy from one to another, and goes by a registry. */
  readonly to: string;
  /** host:port, plain HTTP, of a registry to write to. */
  readonly registry: string;
}

/** Reads an image with all its platforms out of an OCI image layout, by a client people use. */
export async function readLayoutBy(options: ReadOptions): Promise<void> {
  const { client, layout, name, digest, to, registry } = options;
  const run = (args: readonly string[]) => exec([client.bin(client.name), ...args], { env: client.env });
  if (client.name === "skopeo") {
    await run(["--insecure-policy", "copy", "--all", `oci:${layout}:${name}`, `dir:${to}`]);
    return layoutOf(to);
  }
  if (client.name === "oras") {
    const from = ["--from-oci-layout", `${layout}@${digest}`];
    await run(["copy", "--recursive", ...from, "--to-oci-layout", `${to}:copied`]);
    return;
  }
  const repository = "read/by-crane";
  await run(["push", "--insecure", "--index", layout, `${registry}/${repository}:all`]);
  await copyImage({ client, registry, repository, reference: digest, layout: to });
}

/** Turns skopeo's flat folder ("manifest.json", "<hex>.manifest.json", "<hex>") into the blobs of a layout. */
async function layoutOf(folder: string): Promise<void> {
  const blobs = path.join(folder, "blobs/sha256");
  const files = await readdir(folder);
  await mkdir(blobs, { recursive: true });
  for (const name of files) {
    const bytes = await readFile(path.join(folder, name));
    if (name !== "version") await writeFile(path.join(blobs, sha256(bytes).slice("sha256:".length)), bytes);
  }
}

function argumentsOf(name: string, image: string, layout: string): string[] {
  switch (name) {
    case "skopeo":
      // Into its own format, as it refuses to put docker's media types into an OCI layout. No policy: the system has
      // no policy file where the package is only unpacked.
      return ["--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"].concat(
        `docker://${image}`,
        `dir:${layout}`,
      );
    case "oras":
      return ["copy", "--from-plain-http", "--recursive", image, "--to-oci-layout", `${layout}:copied`];
    case "crane":
      return ["pull", "--insecure", "--format=oci", image, layout];
    default:
      throw new TypeError(`${name} is no client that copies images`);
  }
}

/** Digests of `content` that the layout lacks or has with other bytes; empty when every byte is right. */
export async function differencesOf(content: Content, layout: string): Promise<string[]> {
  const wrong: string[] = [];
  const wanted = [...manifestsOf(content), ...blobsOf(content)];
  for (const { descriptor, bytes } of wanted) {
    const file = path.join(layout, "blobs", descriptor.digest.replace(":", "/"));
    const found = await readFile(file).catch(() => undefined);
    if (found === undefined) wrong.push(`${descriptor.digest} is missing`);
    else if (!found.equals(bytes)) wrong.push(`${descriptor.digest} has other bytes`);
  }
  const known = new Set(wanted.map((one) => one.descriptor.digest));
  for (const hex of await readdir(path.join(layout, "blobs/sha256"))) {
    if (!known.has(`sha256:${hex}`)) wrong.push(`sha256:${hex} is not part of it`);
  }
  return wrong;
}
