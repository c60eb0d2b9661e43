/* Loops that become vectors of the CPU at hand.
 *
 * A function marked CLONES is compiled for plain x86-64, for AVX2 and for AVX-512, and the loader
 * picks by the CPU it finds. The clones hold loops only, no OpenMP regions: the body of a region
 * becomes a function of its own, which would not be cloned. What they call must be inlined. */
#ifndef TEMPER_BASE_CLONES_H
#define TEMPER_BASE_CLONES_H

/* Sanitizers instrument the resolver too, which runs before they are set up. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define CLONES
#endif

#define INLINED static inline __attribute__((always_inline))

#endif
