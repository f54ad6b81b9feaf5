// SPDX-License-Identifier: GPL-2.0-only
/* cgroup hooks of sockets: processes of the host reach Services. A socket is connected, or
 * sends, to an endpoint right away, so no packet is translated; the process is told the
 * Service's address and port. Only sockets of the host's own network namespace are ours.
 */

#include "lib/sockets.h"

#define GO_ON 1
#define REFUSE 0 /* with EPERM, if the program names no other error */

/* connect(), or sendto() of a datagram socket. */
static __always_inline int call_service(struct bpf_sock_addr *ctx, bool ip6, bool connects)
{
	struct socket_key key = {};
	struct socket_peer peer = {};
	int error;

	if (!is_of_host(ctx) || (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP))
		return GO_ON;
	read_peer(ctx, ip6, &key);
	error = find_peer(&key, &peer, ctx->protocol, connects);
	if (!error)
		write_peer(ctx, ip6, &peer);
	if (error >= 0)
		return GO_ON;
	if (config.set_retval)
		bpf_set_retval(error);
	return REFUSE;
}

/* recvfrom(), or getpeername(). */
static __always_inline int name_service(struct bpf_sock_addr *ctx, bool ip6)
{
	struct socket_key key = {};
	struct socket_peer *peer;

	if (!is_of_host(ctx))
		return GO_ON;
	read_peer(ctx, ip6, &key);
	peer = bpf_map_lookup_elem(&sockets, &key);
	if (peer)
		write_peer(ctx, ip6, peer);
	return GO_ON;
}

#define PROGRAM(name, verdict)              \
	SEC("cgroup/" #name)                \
	int name(struct bpf_sock_addr *ctx) \
	{                                   \
		return verdict;             \
	}

PROGRAM(connect4, call_service(ctx, false, true))
PROGRAM(connect6, call_service(ctx, true, true))
PROGRAM(sendmsg4, call_service(ctx, false, false))
PROGRAM(sendmsg6, call_service(ctx, true, false))
PROGRAM(recvmsg4, name_service(ctx, false))
PROGRAM(recvmsg6, name_service(ctx, true))
PROGRAM(getpeername4, name_service(ctx, false))
PROGRAM(getpeername6, name_service(ctx, true))

char LICENSE[] SEC("license") = "GPL";
