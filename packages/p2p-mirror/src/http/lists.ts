import { raceSignal } from "@p2p-mirror/shared";
import type { Content } from "../transfer/content.ts";
import type { UpstreamList } from "../upstream/upstream.ts";
import type { Answer } from "./answer.ts";
import type { DistributionPath, LinkForm } from "./distribution-path.ts";
import type { Exchange } from "./exchange.ts";

type ListPath = Extract<DistributionPath, { kind: "tags" | "referrers" }>;

/** `tags/list` and `referrers`, handed through as the content port gives them. */
export async function answerList(content: Content, exchange: Exchange, path: ListPath): Promise<Answer> {
  const { signal } = exchange;
  const list = await raceSignal(
    path.kind === "tags"
      ? content.tags(path, path.query, { signal })
      : content.referrers(path, path.digest, path.query, { signal }),
    signal,
  );
  const link = list.next === undefined ? undefined : linkTo(list.next, path.link);
  return {
    status: 200,
    headers: {
      "content-type": list.contentType,
      ...(link === undefined ? {} : { link }),
      ...filtersOf(list),
    },
    body: list.body,
  };
}

const filtersOf = ({ filtersApplied }: UpstreamList): Record<string, string> =>
  filtersApplied === undefined ? {} : { "oci-filters-applied": filtersApplied };

/** The next page at this mirror: upstream's parameters on the path and the registry as this client wrote them. */
function linkTo(next: string, { path, ns }: LinkForm): string {
  const mark = next.indexOf("?");
  const query = new URLSearchParams(mark === -1 ? "" : next.slice(mark + 1));
  query.delete("ns");
  if (ns !== undefined) query.set("ns", ns);
  return `<${path}?${query.toString()}>; rel="next"`;
}
