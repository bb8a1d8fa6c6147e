import protobuf from "protobufjs";

/**
 * The messages as protobuf text inside TypeScript, read at start by protobufjs, as for the gRPC contracts. (protons, which
 * libp2p itself uses, generates namespaces and enums: Node cannot run those by type stripping.)
 */
const SOURCE = `
syntax = "proto3";
package p2pmirror.swarm;

message Contact { string id = 1; string host = 2; uint32 port = 3; }
message Lease { uint64 id = 1; uint32 first = 2; uint32 end = 3; }
message LeaseProgress { uint64 id = 1; uint64 bytes = 2; }
message News {
  Contact peer = 1; Contact contact = 2; string zone = 3; float load = 4; bool left = 5; bytes have = 6;
}
message SignedHash { uint32 piece = 1; bytes sha256 = 2; string signer = 3; bytes signature = 4; }

message Join {
  string digest = 1; uint64 size = 2; string host = 3; uint32 port = 4; uint32 contact_port = 5; string zone = 6;
  float load = 7; bytes have = 8; repeated Lease leases = 9; bool again = 10; bool unauthorized = 11; uint32 hops = 12;
  repeated string avoid = 13;
}
message Told {
  repeated Lease leases = 1; repeated News neighbours = 2; repeated string gone = 3; uint32 fetchers = 4;
  uint32 paused_ms = 5; uint32 zone_rank = 6; uint32 zone_size = 7; uint64 brought = 8;
}
message Progress {
  repeated uint32 pieces = 1; repeated LeaseProgress leases = 2; float load = 3; repeated string unreachable = 4;
  repeated Contact holders = 5; repeated string lost = 6;
}
message HandBack { uint64 lease = 1; string why = 2; optional uint32 retry_after_ms = 3; }
message Redirect { Contact to = 1; }
message Merge { string digest = 1; uint64 size = 2; }
message Hello {
  string digest = 1; uint64 size = 2; string host = 3; uint32 port = 4; string zone = 5; float load = 6; bytes have = 7;
}
message Have { repeated uint32 pieces = 1; repeated SignedHash hashes = 2; float load = 3; }
message Leave { bool complete = 1; }

message Envelope {
  oneof message {
    Join join = 1; Told told = 2; Progress progress = 3; HandBack hand_back = 4; Redirect redirect = 5; Merge merge = 6;
    Hello hello = 7; Have have = 8; Leave leave = 9;
  }
}
`;

/** Every message on the wire is one of these. */
export const createEnvelope = (): protobuf.Type =>
  protobuf.parse(SOURCE, new protobuf.Root()).root.lookupType("p2pmirror.swarm.Envelope");
