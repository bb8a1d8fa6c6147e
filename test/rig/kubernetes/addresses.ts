/** The addresses of every cluster of the rig: its network is its own, so that they may be the same in all. */
export const SERVICE_CIDR = "10.96.0.0/16";
/** The API server as Pods find it: the first address of the Services. */
export const API_ADDRESS = "10.96.0.1";
export const DNS_ADDRESS = "10.96.0.10";
/** Port of the API server, on all its addresses: that of the Service, since nobody translates ports here. */
export const API_PORT = 443;

/** @param index of the node, from 0 */
export const podSubnet = (index: number): string => `10.244.${index}.0/24`;
