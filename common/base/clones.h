/* Loops that become vectors of the CPU at hand.
 *
 * A function marked CLONES is compiled for plain x86-64, for AVX2 and for x86-64-v4, and the loader
 * picks by the CPU it finds. (v4 is AVX-512 with its instructions for 8 and 16 bit, without which
 * loops that read or write bf16 stay scalar.) The clones hold loops only, no OpenMP regions: the
 * body of a region becomes a function of its own, which would not be cloned. What they call must be
 * inlined. */
#ifndef TEMPER_BASE_CLONES_H
#define TEMPER_BASE_CLONES_H

/* Sanitizers instrument the resolver too, which runs before they are set up. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define CLONES
#endif

#define INLINED static inline __attribute__((always_inline))

#endif
