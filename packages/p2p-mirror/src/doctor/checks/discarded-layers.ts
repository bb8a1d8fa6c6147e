import type { Check } from "../check.ts";

/** Without its layers containerd's content store is of no use to other nodes (facts/containerd.md 6). */
export const discardedLayers: Check = {
  name: "discarded-layers",
  cheap: true,
  async find(subject) {
    const { discardUnpackedLayers, files } = await subject.config();
    if (!discardUnpackedLayers) return [];
    return [
      {
        severity: "warning",
        what: "containerd throws layers away once they are unpacked (discard_unpacked_layers)",
        why: "other nodes can only get from this one what its mirror has in its own cache, nothing of what containerd had before",
        fix: `set discard_unpacked_layers = false in ${files.join(" or ")}, and restart containerd; or leave it, and keep cache_size large enough for the images of this node`,
      },
    ];
  },
};
