/* SPDX-License-Identifier: GPL-2.0-only */
/* Everything that crosses to Python. No struct has a hole, every size is
 * asserted, and pycni/dataplane/abi.py is generated from this file:
 * python -m loader.abi. An address is 16 bytes in network order, IPv4 as
 * v4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2). A member `flags` of struct X has
 * the bits of enum X_flag; a member `pad` is not used.
 *
 * Pinned maps outlive an upgrade, and hold these numbers: a new enumerator gets a
 * new number, and no number is used again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

union ip_addr {
	__u8 bytes[16];
	__u32 words[4]; /* no 64-bit member: remote_key has no hole */
};

/* endpoints: address of a pod on this node -> the host end of its pair */
struct endpoint {
	__u32 ifindex;
	__u8 mac[6];
	__u16 flags;
};

enum endpoint_flag {
	ENDPOINT_MASQUERADE = 1, /* ipMasq: mark what leaves the cluster */
	ENDPOINT_SHAPED = 2, /* a qdisc limits the rate of what it receives */
	ENDPOINT_FORWARDS = 4, /* the pod passes packets on: a router, VMs */
	ENDPOINT_QUEUED = 8, /* others' ingress qdisc takes what it sends */
};

/* remotes: pod CIDR of another node, or one address outside of it that the node
 * published -> its VTEP. prefixlen counts from the top of the 128 bits: an IPv4
 * /24 is 96 + 24.
 */
struct remote_key {
	__u32 prefixlen;
	union ip_addr addr;
};

struct remote {
	union ip_addr vtep;
};

/* vteps: underlay address -> the node that may send to us from it */
struct vtep {
	__u32 node; /* row of the node in the cluster store */
	__u32 flags;
};

enum vtep_flag {
	VTEP_DIRECT = 1, /* takes packets without outer headers, too */
	VTEP_ROUTED = 2, /* and takes them from routers */
	VTEP_IPIP = 4, /* takes IPIP, too */
};

/* nodes: an address of a node, this one included -> its VTEP */
struct node {
	union ip_addr vtep;
};

/* nexthops: underlay address of another node -> how packets to it leave */
struct nexthop {
	__u32 ifindex;
	__u32 mtu; /* largest IP packet of a pod that fits this way, bytes */
	__u8 dst_mac[6];
	__u8 src_mac[6];
	__u16 flags;
	__u16 used; /* set by the programs, cleared by the agent */
};

enum nexthop_flag {
	NEXTHOP_ON_LINK = 1, /* the neighbour is the node itself */
	NEXTHOP_DIRECT = 2, /* what goes to it has no outer headers */
	NEXTHOP_UNRESOLVED = 4, /* dst_mac was the neighbour's, or is zero */
	NEXTHOP_IPIP = 8, /* what goes to it is in IPIP */
};

/* path_mtus: underlay address of another node -> the path to it, where less fits
 * than the overlay's MTU
 */
struct path_mtu {
	__u32 mtu; /* largest IP packet of a pod that fits, bytes */
};

/* self: what may change of this node while it runs, in the only entry, 0 */
struct self {
	union ip_addr vtep; /* our underlay address */
	__u64 fresh_until; /* ns of CLOCK_MONOTONIC: until then nexthops holds */
};

/* services: what clients send to -> the endpoints behind it. An entry whose port and
 * proto are zero says that the address is a Service's at all.
 */
struct frontend {
	union ip_addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct service {
	__u32 id; /* of the service port, from 1 */
	__u32 all_base; /* the range in `slots` of the endpoints anywhere */
	__u32 all_count;
	__u32 local_base; /* of those on this node */
	__u32 local_count;
	__u32 affinity; /* s for which a client keeps its endpoint; 0: not */
	__u32 flags;
};

enum service_flag {
	SERVICE_LOCAL = 1, /* only endpoints on this node are chosen */
};

/* slots: ranges of endpoints to choose from. A range in use is never changed. */
struct slot {
	__u32 backend; /* index */
};

/* backends: endpoints, each of one service port. An index is used again for another
 * only with another generation. Entry 0 is not used.
 */
struct backend {
	union ip_addr addr;
	__be16 port;
	__u16 flags;
	__u32 generation;
	__u32 service; /* id of the service port; 0: there is no such endpoint */
};

enum backend_flag {
	BACKEND_ALL = 1, /* new flows may choose it */
	BACKEND_LOCAL = 2, /* those too that stay on this node */
};

/* flows: a packet as it comes -> as it goes on. What is translated has two entries,
 * one for each direction.
 */
struct flow_key {
	union ip_addr src;
	union ip_addr dst;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};

struct flow {
	struct flow_key to;
	__u64 expires; /* ns of CLOCK_MONOTONIC; after that it is no entry */
	__u32 backend; /* index; 0: not to an endpoint of a Service */
	__u32 generation; /* of the backend, when it was chosen */
	__u16 flags;
	__u8 pad[6];
};

enum flow_flag {
	FLOW_REQUEST = 1, /* from the client; without it, an answer */
	FLOW_ANSWERED = 2, /* this flag and those below are in both entries */
	FLOW_REQUEST_FIN = 4, /* TCP: the client has sent its last byte */
	FLOW_ANSWER_FIN = 8,
	FLOW_RESET = 16,
};

/* affinity: a client of a service port -> the endpoint of its last new flow */
struct affinity_key {
	__u32 service;
	union ip_addr client;
};

struct affinity {
	__u64 expires; /* ns of CLOCK_MONOTONIC */
	__u32 backend;
	__u32 generation;
};

/* sockets: a socket of the host and a peer as its process knows it -> the peer as the
 * kernel does, and the reverse. One of them is a Service's address and port.
 */
struct socket_key {
	__u64 cookie; /* bpf_get_socket_cookie() */
	union ip_addr addr;
	__be16 port;
	__u8 pad[6];
};

struct socket_peer {
	union ip_addr addr;
	__be16 port;
	__u8 pad[2];
	__u32 backend; /* index */
	__u32 generation; /* of the backend, when it was chosen */
};

/* drops: [attach_point * DROP_REASONS + reason], one per CPU */
struct drop_count {
	__u64 packets;
	__u64 bytes;
};

/* forwarded: [attach_point * PATHS + path], one per CPU */
struct path_count {
	__u64 packets;
	__u64 bytes;
};

enum attach_point {
	FROM_CONTAINER,
	TO_CONTAINER,
	FROM_UNDERLAY,
	FROM_OVERLAY,
	TO_OVERLAY,
	ATTACH_POINTS,
};

/* Where a packet went that was not dropped. */
enum packet_path {
	PATH_NONE, /* not counted: not ours, or counted by another program */
	PATH_POD, /* into a pod of this node */
	PATH_HOST_END, /* out of a pod's host end, where to_container is next */
	PATH_NODE, /* to another node, with outer headers of our own */
	PATH_DEVICE, /* to the VXLAN device, on its way out or in */
	PATH_STACK, /* to the host's stack */
	PATH_QDISC, /* to the ingress qdisc that others put on a host end */
	PATH_ANSWER, /* an answer back to the pod: ARP, ND, an ICMP error */
	PATH_DIRECT, /* to another node, without outer headers */
	PATHS, /* size of the table, not a path */
};

/* Why a packet was dropped. A table of an earlier version begins at 2, too. */
enum drop_reason {
	DROP_TRUNCATED = 2, /* shorter than its headers say */
	DROP_BAD_HEADER, /* a header contradicts itself */
	DROP_UNKNOWN_L3, /* not IP, no ARP we answer, or a VLAN's */
	DROP_MULTICAST, /* broadcast and multicast do not cross */
	DROP_SPOOFED_MAC, /* not the pod's MAC */
	DROP_SPOOFED_SOURCE, /* not an address of this pod */
	DROP_UNANSWERED_PROBE, /* ARP or ND of a pod about itself */
	DROP_UNKNOWN_DESTINATION, /* cluster address that nobody has */
	DROP_WRONG_ENDPOINT, /* not a destination behind this host end */
	DROP_WRONG_VNI, /* VXLAN of another overlay */
	DROP_UNKNOWN_VTEP, /* VXLAN or IPIP from a host that is not a node */
	DROP_SPOOFED_INNER, /* inner source is not of that node */
	DROP_TOO_BIG, /* above the MTU of the path, and no ICMP for it */
	DROP_REWRITE_FAILED, /* a helper could not change the packet */
	DROP_MARTIAN, /* to an address that no packet may go to */
	DROP_LINK_LOCAL, /* to or from a link-local address */
	DROP_NEIGHBOUR_MESSAGE, /* ND or a redirect, for another than us */
	DROP_HIDDEN_HEADER, /* what it carries cannot be read */
	DROP_FORGED_VXLAN, /* of a pod, to another than a pod */
	DROP_BAD_TUNNEL, /* tunnel metadata that cannot be read */
	DROP_NOT_VTEP, /* VXLAN to another address of this node */
	DROP_FORGED_ERROR, /* of a pod, about a path between nodes */
	DROP_WRONG_NEIGHBOUR, /* without outer headers, not from its node */
	DROP_FORGED_IPIP, /* of a pod, to another than a pod */
	DROP_CONGESTED, /* congestion that its sender cannot be told of */
	DROP_NO_ENDPOINT, /* to a Service without endpoints */
	DROP_NO_LOCAL_ENDPOINT, /* to one whose endpoints are elsewhere */
	DROP_UNKNOWN_PORT, /* to a port that the Service does not have */
	DROP_BACKEND_GONE, /* of a connection to an endpoint that is gone */
	DROP_NO_FLOW, /* a new flow finds no entry, or no free port */
	DROP_REASONS, /* size of the table, not a reason */
};

/* events: a ring buffer of records of several kinds. Each record begins with
 * struct event; a reader skips a kind or a version that it does not know.
 */
enum event_kind {
	EVENT_DROP = 1, /* struct drop_event */
};

struct event {
	__u16 kind; /* enum event_kind */
	__u16 version; /* of this kind's layout, from 1 */
	__u32 length; /* bytes of the record, with this head */
};

/* A sample of the drops. */
#define DROP_EVENT_VERSION 1
#define EVENT_HEAD 64

struct drop_event {
	struct event event;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 ifindex;
	__u32 length; /* bytes of the packet, with the Ethernet header */
	__u8 point; /* enum attach_point */
	__u8 reason; /* enum drop_reason */
	__u16 head_length; /* valid bytes of head */
	__u32 pad;
	__u8 head[EVENT_HEAD]; /* from the Ethernet header on */
};

struct prefix {
	union ip_addr addr;
	union ip_addr mask;
};

/* .rodata of every program, written by the loader before the load */
struct config {
	__u32 vni;
	__u32 stack_ifindex; /* what enters here, the host's stack receives */
	__u32 vxlan_ifindex; /* VXLAN device that takes metadata, 0: none */
	__u32 overlay_mtu; /* largest inner IP packet, bytes */
	__u32 masquerade_mark; /* or-ed into skb->mark */
	__u32 event_mask; /* a drop makes an event when count & mask == 0 */
	__u8 gateway_mac[6]; /* of every host end and of the stack's device */
	__u8 overlay_mac[6]; /* inner source between nodes: a VXLAN device takes
			      * a frame from its own MAC for a loop and drops it
			      */
	__be16 vxlan_port;
	__u8 tunnel_key_local; /* kernel >= 6.0 takes a local tunnel address */
	__u8 own_encap; /* else the VXLAN device makes all outer headers */
	__u8 decap_l3; /* kernel >= 6.3 takes IPv4 out of IPv6, and back */
	__u8 netkit; /* kernel >= 6.7: pods may have netkit pairs */
	__u8 direct; /* nodes send to each other without outer headers */
	__u8 routed; /* even by routers, which know where pods are */
	union ip_addr gateway4; /* this node's address in its pod CIDR */
	union ip_addr gateway6;
	struct prefix cluster4; /* all pods of all nodes; if the family is off:
				 * mask all ones, address zero
				 */
	struct prefix cluster6;
	struct remote_key node_prefix4; /* length and mask of every node's pod
					 * CIDR; zero if the family is off
					 */
	struct remote_key node_prefix6;
	__u32 link_local[4]; /* IPv4, network order: link-local addresses that
			      * pods may reach; 0: none
			      */
	__u32 ipip; /* 1: nodes send to each other in IPIP */
	__u32 dead_end_mark; /* skb->mark of what the stack shall answer with an
			      * ICMP error; 0: it answers nothing
			      */
	__u32 services; /* 1: what pods send to Services is translated */
	__u32 reject_mark; /* skb->mark of what the stack shall reject */
	__u32 set_retval; /* kernel >= 6.1: a socket program names the error */
	__u64 netns; /* cookie of the host's network namespace; 0: the kernel's first */
};

_Static_assert(sizeof(union ip_addr) == 16, "ip_addr");
_Static_assert(sizeof(struct endpoint) == 12, "endpoint");
_Static_assert(sizeof(struct remote_key) == 20, "remote_key");
_Static_assert(sizeof(struct remote) == 16, "remote");
_Static_assert(sizeof(struct vtep) == 8, "vtep");
_Static_assert(sizeof(struct node) == 16, "node");
_Static_assert(sizeof(struct nexthop) == 24, "nexthop");
_Static_assert(sizeof(struct path_mtu) == 4, "path_mtu");
_Static_assert(sizeof(struct self) == 24, "self");
_Static_assert(sizeof(struct frontend) == 20, "frontend");
_Static_assert(sizeof(struct service) == 28, "service");
_Static_assert(sizeof(struct slot) == 4, "slot");
_Static_assert(sizeof(struct backend) == 28, "backend");
_Static_assert(sizeof(struct flow_key) == 40, "flow_key");
_Static_assert(sizeof(struct flow) == 64, "flow");
_Static_assert(sizeof(struct affinity_key) == 20, "affinity_key");
_Static_assert(sizeof(struct affinity) == 16, "affinity");
_Static_assert(sizeof(struct socket_key) == 32, "socket_key");
_Static_assert(sizeof(struct socket_peer) == 28, "socket_peer");
_Static_assert(sizeof(struct drop_count) == 16, "drop_count");
_Static_assert(sizeof(struct path_count) == 16, "path_count");
_Static_assert(sizeof(struct event) == 8, "event");
_Static_assert(sizeof(struct drop_event) == 96, "drop_event");
_Static_assert(sizeof(struct config) == 224, "config");
