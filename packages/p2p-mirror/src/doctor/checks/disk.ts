import { access, constants, statfs } from "node:fs/promises";
import { codeOf } from "@p2p-mirror/shared/config";
import type { Check } from "../check.ts";

/** Whether what is pulled can be kept. */
export const disk: Check = {
  name: "disk",
  cheap: true,
  async find({ settings }) {
    const { dataDir } = settings;
    const why =
      "nothing is kept: each pull goes to other nodes or the registry again, and others get little from this one";
    try {
      await access(dataDir, constants.R_OK | constants.W_OK | constants.X_OK);
    } catch (error) {
      const reason = codeOf(error);
      return [
        {
          severity: "broken",
          what: `data_dir ${dataDir} cannot be written to (${reason})`,
          why: "the mirror does not start without it",
          fix: `make ${dataDir} a directory that the mirror's user may write to, or set data_dir to one`,
        },
      ];
    }
    const { bavail, bsize, blocks, ffree, files } = await statfs(dataDir);
    const [free, least] = [bavail * bsize, settings.minFree(blocks * bsize)];
    if (free < least) {
      return [
        {
          severity: "warning",
          what: `the disk of ${dataDir} has ${mib(free)} MiB free, and cache_min_free keeps ${mib(least)} MiB free`,
          why,
          fix: `free ${mib(least - free) + 1} MiB or more there, put data_dir on another disk, or lower cache_min_free`,
        },
      ];
    }
    // Some file systems have no number of files.
    if (files === 0 || ffree > 0) return [];
    return [
      {
        severity: "warning",
        what: `the file system of ${dataDir} has no inode left`,
        why,
        fix: "delete files there, or put data_dir on another file system",
      },
    ];
  },
};

const mib = (bytes: number): number => Math.floor(bytes / 1024 / 1024);
