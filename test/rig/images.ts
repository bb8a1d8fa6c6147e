export * from "./images/content.ts";
export * from "./images/make.ts";
export { pushImage, type PushOptions } from "./images/push.ts";
export { randomBytesOf } from "./images/random.ts";
