import { Contracts } from "../proto.ts";

/**
 * The part of containerd's API that this project uses, written from its documentation with its names and field numbers:
 * the same in 1.6, 1.7 and 2.x. Fields that are not used are left out; protobuf passes over them.
 */
const GOOGLE = `
syntax = "proto3";
package google.protobuf;
message Empty {}
message Any { string type_url = 1; bytes value = 2; }
message Timestamp { int64 seconds = 1; int32 nanos = 2; }
`;

const TYPES = `
syntax = "proto3";
package containerd.types;
message Descriptor { string media_type = 1; string digest = 2; int64 size = 3; }
message Envelope {
  google.protobuf.Timestamp timestamp = 1;
  string namespace = 2;
  string topic = 3;
  google.protobuf.Any event = 4;
}
`;

const CONTENT = `
syntax = "proto3";
package containerd.services.content.v1;
service Content {
  rpc Info(InfoRequest) returns (InfoResponse);
  rpc List(ListContentRequest) returns (stream ListContentResponse);
  rpc Read(ReadContentRequest) returns (stream ReadContentResponse);
}
message Info {
  string digest = 1;
  int64 size = 2;
  google.protobuf.Timestamp created_at = 3;
  map<string, string> labels = 5;
}
message InfoRequest { string digest = 1; }
message InfoResponse { Info info = 1; }
message ListContentRequest { repeated string filters = 1; }
message ListContentResponse { repeated Info info = 1; }
message ReadContentRequest { string digest = 1; int64 offset = 2; int64 size = 3; }
message ReadContentResponse { int64 offset = 1; bytes data = 2; }
`;

const IMAGES = `
syntax = "proto3";
package containerd.services.images.v1;
service Images {
  rpc Get(GetImageRequest) returns (GetImageResponse);
  rpc List(ListImagesRequest) returns (ListImagesResponse);
}
message Image {
  string name = 1;
  map<string, string> labels = 2;
  containerd.types.Descriptor target = 3;
  google.protobuf.Timestamp created_at = 7;
}
message GetImageRequest { string name = 1; }
message GetImageResponse { Image image = 1; }
message ListImagesRequest { repeated string filters = 1; }
message ListImagesResponse { repeated Image images = 1; }
message ImageCreate { string name = 1; }
message ImageUpdate { string name = 1; }
message ImageDelete { string name = 1; }
`;

const EVENTS = `
syntax = "proto3";
package containerd.services.events.v1;
service Events {
  rpc Subscribe(SubscribeRequest) returns (stream containerd.types.Envelope);
}
message SubscribeRequest { repeated string filters = 1; }
`;

const EVENT_PAYLOADS = `
syntax = "proto3";
package containerd.events;
message ContentCreate { string digest = 1; int64 size = 2; }
message ContentDelete { string digest = 1; }
`;

const INTROSPECTION = `
syntax = "proto3";
package containerd.services.introspection.v1;
service Introspection {
  rpc Plugins(PluginsRequest) returns (PluginsResponse);
}
message Plugin { string type = 1; string id = 2; map<string, string> exports = 5; }
message PluginsRequest { repeated string filters = 1; }
message PluginsResponse { repeated Plugin plugins = 1; }
`;

const VERSION = `
syntax = "proto3";
package containerd.services.version.v1;
service Version {
  rpc Version(google.protobuf.Empty) returns (VersionResponse);
}
message VersionResponse { string version = 1; string revision = 2; }
`;

export const containerdContracts = new Contracts([
  GOOGLE,
  TYPES,
  CONTENT,
  IMAGES,
  EVENTS,
  EVENT_PAYLOADS,
  INTROSPECTION,
  VERSION,
]);

export const contentService = containerdContracts.service("containerd.services.content.v1.Content");
export const imagesService = containerdContracts.service("containerd.services.images.v1.Images");
export const eventsService = containerdContracts.service("containerd.services.events.v1.Events");
export const introspectionService = containerdContracts.service(
  "containerd.services.introspection.v1.Introspection",
);
export const versionService = containerdContracts.service("containerd.services.version.v1.Version");
