const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** `1.5 GiB`, as the program's own output has it. @param {number} bytes */
export function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `3 d`, `5 h`, `12 min`, `40 s`. @param {string} since ISO 8601 */
export function formatAge(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(since)) / 1000));
  if (seconds >= 172_800) return `${Math.floor(seconds / 86_400)} d`;
  if (seconds >= 7_200) return `${Math.floor(seconds / 3_600)} h`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min`;
  return `${seconds} s`;
}

/** @param {string} digest */
export function shortDigest(digest) {
  const [algorithm = "", hex = ""] = digest.split(":");
  return hex.length <= 12 ? digest : `${algorithm}:${hex.slice(0, 12)}`;
}

/** The end of a peer ID: they all begin alike. @param {string} id */
export const shortId = (id) => (id.length <= 12 ? id : `…${id.slice(-8)}`);

/** @param {number} number @param {string} noun */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
