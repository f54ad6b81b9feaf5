// SPDX-License-Identifier: Apache-2.0
#include "sha256.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define BLOCK 64

static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2
};

static uint32_t rotate(uint32_t word, int bits)
{
	return word >> bits | word << (32 - bits);
}

static uint32_t read_word(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 |
	       (uint32_t)at[3];
}

static void spread(const unsigned char *block, uint32_t w[64])
{
	for (int t = 0; t < 16; t++)
		w[t] = read_word(block + 4 * t);
	for (int t = 16; t < 64; t++) {
		uint32_t before = w[t - 15], last = w[t - 2];

		w[t] = (rotate(last, 17) ^ rotate(last, 19) ^ last >> 10) + w[t - 7] +
		       (rotate(before, 7) ^ rotate(before, 18) ^ before >> 3) + w[t - 16];
	}
}

/* The working variables a to h of the standard are v[0] to v[7]. */
static void hash_block(uint32_t hash[8], const unsigned char *block)
{
	uint32_t w[64], v[8];

	spread(block, w);
	memcpy(v, hash, sizeof(v));
	for (int t = 0; t < 64; t++) {
		uint32_t t1 = v[7] + K[t] + w[t] +
			      (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
			      ((v[4] & v[5]) ^ (~v[4] & v[6]));
		uint32_t t2 = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
			      ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(v + 1, v, 7 * sizeof(*v));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		hash[i] += v[i];
}

void sha256_digits(const void *data, size_t len, char digits[DIGITS + 1])
{
	uint32_t hash[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	unsigned char last[2 * BLOCK] = {};
	size_t rest = len % BLOCK, whole = len - rest;
	size_t end = rest + 9 > BLOCK ? 2 * BLOCK : BLOCK;
	uint64_t bits = 8 * (uint64_t)len;

	for (size_t done = 0; done < whole; done += BLOCK)
		hash_block(hash, (const unsigned char *)data + done);
	memcpy(last, (const char *)data + whole, rest);
	last[rest] = 0x80;
	for (int i = 1; i <= 8; i++, bits >>= 8)
		last[end - i] = bits & 0xff;
	for (size_t done = 0; done < end; done += BLOCK)
		hash_block(hash, last + done);
	for (int i = 0; i < DIGITS / 8; i++)
		snprintf(digits + 8 * i, 9, "%08x", hash[i]);
}
