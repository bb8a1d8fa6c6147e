const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `1.5 GiB`, `12 KiB`: three digits say enough. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // Rounding must not make 1024 of a smaller unit.
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[unit] ?? "B"}`;
}

/** The largest unit alone, as people say it: `3 d`, `5 h`, `12 min`, `40 s`. Never below zero: clocks differ. */
export function formatAge(since: string, now: number): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(since)) / 1000));
  if (Number.isNaN(seconds)) return "?";
  if (seconds >= 172_800) return `${Math.floor(seconds / 86_400)} d`;
  if (seconds >= 7_200) return `${Math.floor(seconds / 3_600)} h`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min`;
  return `${seconds} s`;
}

/** Enough of a digest to tell it from others, as other tools show it. */
export function shortDigest(digest: string): string {
  const [algorithm = "", hex = ""] = digest.split(":");
  return hex.length <= 12 ? digest : `${algorithm}:${hex.slice(0, 12)}`;
}

/** The end of a peer ID: they all begin alike. */
export function shortId(id: string): string {
  return id.length <= 12 ? id : `…${id.slice(-8)}`;
}

/** What came from outside, safe for a terminal: control characters (escape sequences too) become `?`. */
export function plain(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, "?");
}
