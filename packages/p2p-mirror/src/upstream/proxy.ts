import { BlockList, isIP } from "node:net";

/** The values of HTTP_PROXY, HTTPS_PROXY and NO_PROXY; whoever builds this reads the environment. */
export interface ProxySettings {
  readonly httpProxy?: string | undefined;
  readonly httpsProxy?: string | undefined;
  readonly noProxy?: string | undefined;
}

const bare = (host: string): string => host.replace(/^\[|\]$/g, "").toLowerCase();

const family = (ip: string): "ipv4" | "ipv6" => (isIP(ip) === 6 ? "ipv6" : "ipv4");

/**
 * Which proxy a URL goes through, by the rules of Go's programs (golang.org/x/net/http/httpproxy), so that the mirror
 * and containerd on the same node agree: `*`; an address; a CIDR block; `example.com` with all below it; `.example.com`
 * or `*.example.com` only what is below; each with an optional port. Loopback is never proxied.
 */
export class ProxyRules {
  readonly #settings: ProxySettings;
  readonly #blocks = new BlockList();
  readonly #names: { readonly suffix: string; readonly exact: boolean; readonly port: string | undefined }[] =
    [];
  readonly #addresses: { readonly ip: string; readonly port: string | undefined }[] = [];
  #none = false;

  constructor(settings: ProxySettings) {
    this.#settings = settings;
    for (const entry of (settings.noProxy ?? "").split(/[,\s]+/)) if (entry !== "") this.#exempt(entry);
  }

  /** The proxy's URL, undefined: none. */
  proxyFor(url: URL): string | undefined {
    const { httpProxy, httpsProxy } = this.#settings;
    const proxy = url.protocol === "https:" ? httpsProxy : httpProxy;
    if (proxy === undefined || proxy === "" || this.#isExempt(url)) return undefined;
    return proxy.includes("://") ? proxy : `http://${proxy}`;
  }

  #exempt(entry: string): void {
    if (entry === "*") {
      this.#none = true;
      return;
    }
    const [network = "", bits] = entry.split("/");
    if (bits !== undefined) {
      const width = Number(bits);
      const valid =
        isIP(network) !== 0 && /^\d{1,3}$/.test(bits) && width <= (isIP(network) === 6 ? 128 : 32);
      if (valid) this.#blocks.addSubnet(network, width, family(network));
      return;
    }
    const withPort = isIP(entry) === 6 ? null : /^(.+):(\d{1,5})$/.exec(entry);
    const host = bare(withPort?.[1] ?? entry);
    const port = withPort?.[2];
    if (isIP(host) !== 0) this.#addresses.push({ ip: host, port });
    else {
      const below = host.replace(/^\*/, "");
      const exact = !below.startsWith(".");
      this.#names.push({ suffix: exact ? `.${below}` : below, exact, port });
    }
  }

  #isExempt(url: URL): boolean {
    const host = bare(url.hostname);
    if (this.#none || host === "localhost" || host === "::1" || host.startsWith("127.")) return true;
    const port = url.port === "" ? (url.protocol === "https:" ? "443" : "80") : url.port;
    const portFits = (wanted: string | undefined): boolean => wanted === undefined || wanted === port;
    if (isIP(host) !== 0) {
      if (this.#blocks.check(host, family(host))) return true;
      return this.#addresses.some((one) => one.ip === host && portFits(one.port));
    }
    return this.#names.some(
      (name) =>
        portFits(name.port) && (host.endsWith(name.suffix) || (name.exact && `.${host}` === name.suffix)),
    );
  }
}
