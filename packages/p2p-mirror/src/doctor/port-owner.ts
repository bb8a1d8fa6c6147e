import { readdir, readFile, readlink } from "node:fs/promises";

/** Linux' number for a socket that listens (include/net/tcp_states.h). */
const LISTEN = "0A";

/** Which process listens at a TCP port, as `name (pid 123)`. Undefined: it cannot be seen by this user. */
export async function ownerOf(port: number): Promise<string | undefined> {
  const inodes = new Set<string>();
  for (const file of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    const text = await readFile(file, "utf8").catch(() => "");
    for (const line of text.split("\n").slice(1)) {
      const [, local = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
      if (state === LISTEN && Number.parseInt(local.split(":")[1] ?? "", 16) === port) inodes.add(inode);
    }
  }
  if (inodes.size === 0) return undefined;
  const wanted = new Set([...inodes].map((inode) => `socket:[${inode}]`));
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
      if (!wanted.has(target)) continue;
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "process");
      return `${name.trim()} (pid ${pid})`;
    }
  }
  return undefined;
}
