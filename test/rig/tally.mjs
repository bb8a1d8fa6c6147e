/** Counts the results in a TAP stream (versions 13 and 14, subtests indented by four spaces). */

const RESULT = /^( *)(not )?ok\b(?: \d+)?(?: - )?(.*?)(?: # (?:(skip|todo)\b *)?(.*))?$/i;

/**
 * @typedef {{ passed: number, failed: number, skipped: { name: string, reason: string }[] }} Tally
 */

/**
 * Leaves are counted, not the lines that sum up a subtest. A sum that failed although none of its leaves did (a timeout,
 * a missing plan, a crash) counts as one failure, so nothing red is lost.
 * @param {string} tap
 * @returns {Tally}
 */
export function tally(tap) {
  const total = { passed: 0, failed: 0, skipped: [] };
  /** Per depth: failures among the results seen since the last result at a lesser depth. */
  const open = [];
  /** Names of the subtests around, by depth. */
  const names = [];
  let yaml;
  for (const line of tap.split("\n")) {
    // Diagnostics are YAML between "---" and "..." and may hold anything, such as the output of another TAP producer.
    if (yaml !== undefined) {
      if (line === `${yaml}...`) yaml = undefined;
      continue;
    }
    const begin = /^( *)---$/.exec(line);
    if (begin) {
      yaml = begin[1];
      continue;
    }
    if (/^ *Bail out!/i.test(line)) {
      total.failed++;
      break;
    }
    const subtest = /^( *)# Subtest: (.*)$/.exec(line);
    if (subtest) {
      names.length = subtest[1].length / 4;
      names.push(subtest[2]);
      continue;
    }
    const result = RESULT.exec(line);
    if (!result) continue;
    const [, indent, not, name, directive, rest = ""] = result;
    const depth = indent.length / 4;
    const failed = not !== undefined;
    const below = open.slice(depth + 1).filter((count) => count !== undefined);
    open.length = depth + 1;
    const failuresBelow = below.reduce((sum, count) => sum + count, 0);
    open[depth] = (open[depth] ?? 0) + (failed ? 1 : 0);
    if (below.length > 0) {
      if (failed && failuresBelow === 0) total.failed++;
    } else if (directive !== undefined) {
      const around = names.slice(0, depth);
      total.skipped.push({ name: [...around, name].join(" > "), reason: rest || directive.toLowerCase() });
    } else if (failed) {
      total.failed++;
    } else {
      total.passed++;
    }
  }
  return total;
}
