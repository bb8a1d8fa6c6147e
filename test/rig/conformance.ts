import { rm } from "node:fs/promises";
import type { Component } from "./components.ts";
import { RigError } from "./errors.ts";
import { tryExec } from "./exec.ts";
import { withoutProxies } from "./process.ts";
import { tempFolder } from "./temp.ts";

export interface ConformanceOptions {
  /** oci-conformance. */
  readonly component: Component;
  /** host:port, plain HTTP. */
  readonly registry: string;
  readonly repository: string;
  /** What the repository holds: the suite only reads. */
  readonly tags: readonly string[];
  /** Digests of manifests. */
  readonly manifests: readonly string[];
  readonly blobs: readonly string[];
  /** Digests of subjects, for the referrers API; none: that API is not tested. */
  readonly referrers?: readonly string[];
}

export interface ConformanceCase {
  readonly name: string;
  readonly result: "passed" | "failed" | "skipped";
  /** What the suite says about a failure. */
  readonly message: string;
}

/** Runs the pull tests of the OCI distribution conformance suite in its mode for read-only registries. */
export async function runConformance(options: ConformanceOptions): Promise<ConformanceCase[]> {
  const results = await tempFolder("conformance");
  const referrers = options.referrers ?? [];
  try {
    const ended = await tryExec([options.component.bin("conformance")], {
      cwd: results,
      env: {
        ...withoutProxies(options.component.env),
        OCI_RESULTS_DIR: results,
        OCI_REGISTRY: options.registry,
        OCI_TLS: "disabled",
        OCI_REPO1: options.repository,
        OCI_API_PUSH: "false",
        OCI_API_BLOBS_DELETE: "false",
        OCI_API_MANIFESTS_DELETE: "false",
        OCI_API_TAGS_DELETE: "false",
        OCI_API_BLOBS_DIGEST_HEADER: "true",
        // In read-only mode the suite does not look at the header of manifests, and then reports it missing.
        OCI_API_MANIFESTS_DIGEST_HEADER: "false",
        OCI_API_REFERRER: referrers.length > 0 ? "true" : "false",
        OCI_RO_DATA_TAGS: options.tags.join(" "),
        OCI_RO_DATA_MANIFESTS: options.manifests.join(" "),
        OCI_RO_DATA_BLOBS: options.blobs.join(" "),
        OCI_RO_DATA_REFERRERS: referrers.join(" "),
      },
    });
    // The suite's own report files are not made in read-only mode (it dies making the first); its output is complete.
    const cases = parseReport(ended.stdout);
    // The suite ends with 0 when it could not even start.
    if (cases.length === 0) {
      throw new RigError("COMMAND_FAILED", `the suite ran no test:\n${ended.stdout}\n${ended.stderr}`);
    }
    return cases;
  } finally {
    await rm(results, { recursive: true, force: true });
  }
}

/**
 * Lines such as `    OCI Conformance Test/read-only/tag-list: Pass`, deeper ones further to the right, what went wrong
 * below as `     - reason`. Only leaves are cases.
 */
export function parseReport(report: string): ConformanceCase[] {
  const cases: ConformanceCase[] = [];
  let open: { name: string; status: string; depth: number; reasons: string[] } | undefined;
  const finish = (nextDepth: number): void => {
    if (open !== undefined && nextDepth <= open.depth) {
      const result = RESULTS[open.status] ?? "failed";
      cases.push({ name: open.name, result, message: open.reasons.join("; ") });
    }
    open = undefined;
  };
  for (const line of report.split("\n")) {
    const result = /^( *)OCI Conformance Test\/(.+): (\w+)$/.exec(line);
    if (result) {
      const [, indent = "", name = "", status = ""] = result;
      finish(indent.length);
      open = { name, status, depth: indent.length, reasons: [] };
    } else if (/^ +- /.test(line)) {
      open?.reasons.push(line.trim().slice(2));
    } else if (line === "") {
      finish(0);
      if (cases.length > 0) break;
    }
  }
  return cases;
}

const RESULTS: Readonly<Record<string, ConformanceCase["result"]>> = {
  Pass: "passed",
  Skip: "skipped",
  Disabled: "skipped",
};
