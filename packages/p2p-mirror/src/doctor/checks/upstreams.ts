import { CannotTell, type Check } from "../check.ts";

/** Whether the registries answer that were asked lately. */
export const upstreams: Check = {
  name: "upstream",
  cheap: true,
  async find(subject) {
    const status = await subject.status();
    if (status === undefined) throw new CannotTell("no mirror runs");
    return status.upstreams.flatMap(({ registry, host, state, error, retryAt }) => {
      const who = host === undefined ? registry : `${registry} at ${host}`;
      const again = retryAt === undefined ? "" : `, asked again at ${retryAt}`;
      if (state === "unreachable") {
        return {
          severity: "warning" as const,
          what: `${who} does not answer (${error ?? "no reason is known"}${again})`,
          why: "images that no node of the cluster holds cannot be pulled from there",
          fix: fixOf(error ?? "", who),
        };
      }
      if (state !== "rate-limited") return [];
      return {
        severity: "warning" as const,
        what: `${who} has limited how much this node may ask${again}`,
        why: "images that no node of the cluster holds wait, or cannot be pulled",
        fix: `give the mirror a login for ${registry} (docker_config), which most registries allow more`,
      };
    });
  },
};

function fixOf(error: string, who: string): string {
  if (error === "ENOTFOUND" || error === "EAI_AGAIN")
    return `correct the name, or the name servers of this node`;
  if (/CERT|SELF_SIGNED|UNABLE_TO/.test(error))
    return `name the certificate authority of ${who} in ca of its hosts.toml, or in registries.NAME.ca`;
  return `see whether this node reaches ${who}: routes, firewalls, https_proxy; a host that is gone for good belongs out of hosts.toml`;
}
