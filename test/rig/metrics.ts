/** Samples of one scrape in the Prometheus text format. */
export interface Scrape {
  /** Sum of all samples of a metric whose labels include `labels`; 0 where there is none yet. */
  sum(name: string, labels?: Readonly<Record<string, string>>): number;
  readonly text: string;
}

interface Sample {
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

export function parseMetrics(text: string): Scrape {
  const samples = new Map<string, Sample[]>();
  for (const line of text.split("\n")) {
    const match = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const [, name = "", inner = "", value = ""] = match;
    const labels = new Map(
      [...inner.matchAll(/([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g)].map(([, key = "", quoted = ""]) => [
        key,
        quoted,
      ]),
    );
    const list = samples.get(name) ?? [];
    list.push({ labels, value: Number(value) });
    samples.set(name, list);
  }
  return {
    text,
    sum: (name, labels = {}) =>
      (samples.get(name) ?? [])
        .filter((sample) =>
          Object.entries(labels).every(([key, wanted]) => sample.labels.get(key) === wanted),
        )
        .reduce((total, sample) => total + sample.value, 0),
  };
}
