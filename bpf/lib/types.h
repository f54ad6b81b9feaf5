/* SPDX-License-Identifier: GPL-2.0-only */
/* Everything that crosses to Python: no holes, sizes asserted, checked
 * against BTF by tests/unit/dataplane/test_maps_abi.py. Addresses are 16 bytes in
 * network order, IPv4 as v4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2).
 */
#ifndef PYCNI_TYPES_H
#define PYCNI_TYPES_H

#include <linux/types.h>

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

#define ENDPOINT_MASQUERADE 1 /* ipMasq: mark what leaves the cluster */
#define ENDPOINT_SHAPED 2 /* a qdisc on the host veth limits its rate */
#define ENDPOINT_FORWARDS 4 /* the pod passes packets on: a router, VMs */
#define ENDPOINT_QUEUED 8 /* another's ingress qdisc takes what it sends */

/* remotes: pod CIDR of a node, or an address outside of it that it published
 * -> its VTEP. prefixlen counts from the top of the 128 bits: an IPv4 /24 is
 * 96 + 24.
 */
struct remote_key {
	__u32 prefixlen;
	union ip_addr addr;
};

struct remote {
	union ip_addr vtep;
};

/* vteps: underlay address -> the node that may send VXLAN to us from it */
struct vtep {
	__u32 node; /* row of the node in the cluster store */
};

/* nexthops: underlay address of another node -> how packets to it leave */
struct nexthop {
	__u32 ifindex;
	__u32 mtu; /* largest IP packet of a pod that fits this way, bytes */
	__u8 dst_mac[6];
	__u8 src_mac[6];
	__u32 used; /* set by the programs, cleared by the agent */
};

/* self: what changes of this node while it runs, in the one entry 0 */
struct self {
	union ip_addr vtep; /* our underlay address */
	__u64 fresh_until; /* ns of the coarse monotonic clock: to when the
			    * agent vouches for what is in nexthops
			    */
};

/* drops: [attach_point * DROP_REASONS + reason], one per CPU */
struct drop_count {
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

/* A step returns a TC action or -DROP_*. From 2: -1 is TC_ACT_UNSPEC. */
enum drop_reason {
	DROP_TRUNCATED = 2,	 /* shorter than its headers say */
	DROP_BAD_HEADER,	 /* a header contradicts itself */
	DROP_UNKNOWN_L3,	 /* not IP, no ARP we answer, or a VLAN's */
	DROP_MULTICAST,		 /* broadcast and multicast do not cross */
	DROP_SPOOFED_MAC,	 /* not the pod's MAC */
	DROP_SPOOFED_SOURCE,	 /* not an address of this pod */
	DROP_UNANSWERED_PROBE,	 /* ARP or ND of a pod about itself */
	DROP_UNKNOWN_DESTINATION,/* cluster address that nobody has */
	DROP_WRONG_ENDPOINT,	 /* destination is not behind this veth */
	DROP_WRONG_VNI,		 /* VXLAN of another overlay */
	DROP_UNKNOWN_VTEP,	 /* VXLAN from a host that is not a node */
	DROP_SPOOFED_INNER,	 /* inner source is not of that node */
	DROP_TOO_BIG,		 /* above the MTU, and no ICMP for it */
	DROP_REWRITE_FAILED,	 /* a helper could not change the packet */
	DROP_REASONS,		 /* size of the table, not a reason */
};

/* events: a sample of drops, through a ring buffer */
#define EVENT_HEAD 64

struct drop_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 ifindex;
	__u32 length; /* bytes, with the Ethernet header */
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
	__u32 overlay_ifindex; /* the metadata vxlan device */
	__u32 overlay_mtu; /* largest inner IP packet, bytes */
	__u32 masquerade_mark; /* or-ed into skb->mark */
	__u32 event_mask; /* a drop makes an event when count & mask == 0 */
	__be16 vxlan_port;
	__u8 gateway_mac[6]; /* every host veth and the overlay device */
	__u8 overlay_mac[6]; /* inner source between nodes: the vxlan device
			      * drops frames from its own address as loops
			      */
	__u8 tunnel_key_local; /* kernel >= 6.0 takes a local tunnel address */
	__u8 own_encap; /* else all VXLAN goes through the metadata device */
	__u8 decap_l3; /* kernel >= 6.3 takes IPv4 out of IPv6, and back */
	__u8 netkit; /* kernel >= 6.7: pods may have netkit pairs */
	__u8 pad[2];
	union ip_addr gateway4; /* this node's address in its pod CIDR */
	union ip_addr gateway6;
	struct prefix cluster4; /* all pods of all nodes; mask all ones and
				 * address zero where the family is off
				 */
	struct prefix cluster6;
	struct remote_key node_prefix4; /* length and mask of the pod CIDRs of
					 * all nodes; zero where the family is
					 * off
					 */
	struct remote_key node_prefix6;
};

_Static_assert(sizeof(union ip_addr) == 16, "ip_addr");
_Static_assert(sizeof(struct endpoint) == 12, "endpoint");
_Static_assert(sizeof(struct remote_key) == 20, "remote_key");
_Static_assert(sizeof(struct remote) == 16, "remote");
_Static_assert(sizeof(struct nexthop) == 24, "nexthop");
_Static_assert(sizeof(struct self) == 24, "self");
_Static_assert(sizeof(struct drop_count) == 16, "drop_count");
_Static_assert(sizeof(struct drop_event) == 88, "drop_event");
_Static_assert(sizeof(struct config) == 176, "config");

#endif
