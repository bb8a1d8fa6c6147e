import { CannotTell, type Check } from "../check.ts";

/** Beyond that, tokens and records of the cluster begin to be wrong; answers are on their way for seconds at most. */
const MAX_SKEW_SECONDS = 60;
const CERTIFICATE_TIMES: ReadonlySet<string> = new Set(["CERT_NOT_YET_VALID", "CERT_HAS_EXPIRED"]);
/** Nothing of this program is older. */
const OLDEST = Date.UTC(2026, 0);

/** Whether this node's date is that of the registries it asks: half of them or more say otherwise. */
export const clock: Check = {
  name: "clock",
  cheap: true,
  async find(subject) {
    const fix = "have the node's clock set by NTP (timedatectl set-ntp true), then restart the mirror";
    const why =
      "certificates and tokens of registries count as expired or not valid yet, and what this node says of tags is not believed by others";
    if (Date.now() < OLDEST) {
      return [{ severity: "broken", what: `this node's date is ${new Date().toISOString()}`, why, fix }];
    }
    const status = await subject.status();
    if (status === undefined)
      throw new CannotTell("no mirror runs, and with it nobody who knows other clocks");
    const skews = status.upstreams.flatMap(({ skewSeconds }) => skewSeconds ?? []);
    const off = skews.filter((skew) => Math.abs(skew) > MAX_SKEW_SECONDS);
    const [first] = off;
    if (first !== undefined && off.length * 2 >= skews.length) {
      const side = first > 0 ? "behind" : "ahead of";
      return [
        {
          severity: Math.abs(first) > 3600 ? "broken" : "warning",
          what: `this node's clock is ${Math.abs(first)} s ${side} that of ${off.length} of ${skews.length} registries`,
          why,
          fix,
        },
      ];
    }
    const certificate = status.upstreams.find(({ error }) => CERTIFICATE_TIMES.has(error ?? ""));
    if (certificate === undefined) return [];
    return [
      {
        severity: "broken",
        what: `the certificate of ${certificate.registry} is not valid at ${new Date().toISOString()}, this node's time (${certificate.error})`,
        why: "nothing can be fetched from there",
        fix: `if the time is wrong, ${fix}; if it is right, the registry's certificate must be renewed`,
      },
    ];
  },
};
