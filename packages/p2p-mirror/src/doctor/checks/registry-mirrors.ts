import type { Check } from "../check.ts";

/** `registry.mirrors` and its kin, from before hosts.toml: the one does not go together with the other. */
export const registryMirrors: Check = {
  name: "registry-mirrors",
  cheap: true,
  async find(subject) {
    const { deprecated, files, configPath } = await subject.config();
    if (deprecated.length === 0) return [];
    const mirrors = deprecated.includes("mirrors");
    const keys = deprecated.map((key) => `registry.${key}`).join(", ");
    return [
      {
        severity: mirrors ? "broken" : "warning",
        what: `${files[0]} has the deprecated ${keys}`,
        why: mirrors
          ? configPath === ""
            ? "containerd asks these mirrors and reads no hosts.toml: pulls go past this mirror"
            : "containerd's CRI plugin does not start with both mirrors and config_path"
          : "later containerds do not know it, and it makes pulls slower: containerd gives up its transfer service for it",
        fix: `write what ${keys} says into hosts.toml files (server, [host."…"], ca, client, header), and take it out of ${files[0]}`,
      },
    ];
  },
};
