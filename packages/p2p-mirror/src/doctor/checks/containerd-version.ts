import { isAtLeast, type Check, type Version } from "../check.ts";

/** Labels are noticed when they change from 1.6.25, 1.7.10 and 2.0 on (facts/prefetch.md d.2). */
const canPin = (version: Version): boolean =>
  version.major === 1 && version.minor === 6
    ? version.patch >= 25
    : version.major === 1 && version.minor === 7
      ? version.patch >= 10
      : isAtLeast(version, 2, 0);

/** Whether images can be kept from kubelet's garbage collection. */
export const containerdVersion: Check = {
  name: "containerd-version",
  cheap: true,
  async find(subject) {
    const version = await subject.version();
    if (canPin(version)) return [];
    return [
      {
        severity: "warning",
        what: `containerd is ${version.text}`,
        why: "it is too old to pin images: kubelet may delete one that was prefetched when its disk fills up",
        fix: "upgrade containerd to 1.6.25, 1.7.10, 2.0 or later",
      },
    ];
  },
};
