/** Counts the results in a TAP stream (versions 13 and 14, subtests indented by four spaces). */

const RESULT = /^( *)(not )?ok\b(?: \d+)?(?: - )?(.*?)(?: # (?:(skip|todo)\b *)?(.*))?$/i;

/** Of what a failed test says of itself, so many lines are repeated at the end. */
const REASON_LINES = 80;

/**
 * @typedef {{
 *   passed: number, failed: number, skipped: { name: string, reason: string }[], failures: { name: string, lines: string[] }[],
 * }} Tally `failures`: what is known of those counted in `failed`
 */

/** @returns {Tally} */
export const noTests = () => ({ passed: 0, failed: 0, skipped: [], failures: [] });

/** @param {Tally} sum @param {Tally} more of the file or suite `from`, which goes before the names; may be empty */
export function addTally(sum, more, from = "") {
  const named = (one) => (from === "" ? one : { ...one, name: `${from} > ${one.name}` });
  sum.passed += more.passed;
  sum.failed += more.failed;
  sum.skipped.push(...more.skipped.map(named));
  sum.failures.push(...more.failures.map(named));
}

/**
 * Leaves are counted, not the lines that sum up a subtest. A sum that failed although none of its leaves did (a timeout,
 * a missing plan, a crash) counts as one failure, so nothing red is lost.
 * @param {string} tap
 * @returns {Tally}
 */
export function tally(tap) {
  const total = noTests();
  /** Per depth: failures among the results seen since the last result at a lesser depth. */
  const open = [];
  /** Names of the subtests around, by depth. */
  const names = [];
  let yaml;
  /** The failure whose diagnostics may follow. */
  let failure;
  const fail = (name, why = "") => {
    total.failed++;
    failure = { name, lines: why === "" ? [] : [why] };
    total.failures.push(failure);
  };
  for (const line of tap.split("\n")) {
    // Diagnostics are YAML between "---" and "..." and may hold anything, such as the output of another TAP producer.
    if (yaml !== undefined) {
      if (line === `${yaml}...`) yaml = failure = undefined;
      else if (failure !== undefined && failure.lines.length < REASON_LINES)
        failure.lines.push(line.slice(yaml.length));
      continue;
    }
    const begin = /^( *)---$/.exec(line);
    if (begin) {
      yaml = begin[1];
      continue;
    }
    if (/^ *Bail out!/i.test(line)) {
      fail(line.trim());
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
    failure = undefined;
    const fullName = [...names.slice(0, depth), name].join(" > ");
    const below = open.slice(depth + 1).filter((count) => count !== undefined);
    open.length = depth + 1;
    const failuresBelow = below.reduce((sum, count) => sum + count, 0);
    open[depth] = (open[depth] ?? 0) + (failed ? 1 : 0);
    if (below.length > 0) {
      if (failed && failuresBelow === 0) fail(fullName, rest);
    } else if (directive !== undefined) {
      total.skipped.push({ name: fullName, reason: rest || directive.toLowerCase() });
    } else if (failed) {
      fail(fullName, rest);
    } else {
      total.passed++;
    }
  }
  return total;
}
