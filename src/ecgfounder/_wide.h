/* Loops that are compiled a second time for processors with wider vectors; their results are the same. */

#ifndef ECGFOUNDER_WIDE_H
#define ECGFOUNDER_WIDE_H

#if defined(__GNUC__) && defined(__x86_64__)
#define INLINE static inline __attribute__((always_inline))
#define WIDE __attribute__((target("avx2")))
#define IS_WIDE __builtin_cpu_supports("avx2")
#else
#define INLINE static inline
#define WIDE
#define IS_WIDE 0
#endif

/* `name`, compiled from the inline function `name_any` for both. */
#define FOR_BOTH(type, name, parameters, arguments)                          \
    WIDE static type name##_wide parameters { return name##_any arguments; } \
    static type name parameters { return IS_WIDE ? name##_wide arguments : name##_any arguments; }

#endif
