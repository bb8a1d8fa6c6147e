export { GrpcChannel, methodOf } from "./channel.ts";
export type { GrpcCallOptions, GrpcChannelOptions, GrpcStreamOptions, Method } from "./channel.ts";
export * from "./fields.ts";
export { Contracts } from "./proto.ts";
export { CriImages } from "./cri.ts";
export { GrpcStatus, grpcStatusOf, toSourceError } from "./status.ts";
export { ContainerdClient, type ContainerdOptions } from "./containerd/client.ts";
export { ContentClient, type ContentInfo } from "./containerd/content.ts";
export { EventsClient, type ContainerdEvent } from "./containerd/events.ts";
export { ImagesClient, type ContainerdImage } from "./containerd/images.ts";
export {
  containerdContracts,
  contentService,
  eventsService,
  imagesService,
  introspectionService,
  versionService,
} from "./containerd/proto.ts";
