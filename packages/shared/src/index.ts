export * from "./abort.ts";
export * from "./descriptor.ts";
export * from "./digest.ts";
export * from "./errors.ts";
export * from "./lifecycle.ts";
export * from "./log.ts";
export * from "./range.ts";
export * from "./reference.ts";
