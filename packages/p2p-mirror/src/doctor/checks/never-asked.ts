import { CannotTell, type Check } from "../check.ts";

/** containerd's times are whole seconds here. */
const MARGIN_MS = 2_000;

/** Images have come since the mirror started, and nobody has asked it for anything. */
export const neverAsked: Check = {
  name: "never-asked",
  cheap: true,
  async find(subject) {
    const status = await subject.status();
    if (status?.node.requests === undefined) throw new CannotTell("no mirror runs");
    if (status.node.requests > 0) return [];
    const since = Date.parse(status.node.startedAt) + MARGIN_MS;
    const image = (await subject.images()).find(
      ({ name, createdAt }) => createdAt > since && !name.startsWith("sha256:"),
    );
    if (image === undefined) return [];
    return [
      {
        severity: "warning",
        what: `containerd got ${image.name} after the mirror had started, and nobody has asked the mirror for anything`,
        why: "images are pulled past the mirror, unless this one was imported from a file",
        fix: "p2p-mirror doctor pulls a canary: do what it says",
      },
    ];
  },
};
