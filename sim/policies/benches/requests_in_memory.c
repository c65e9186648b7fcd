// Drives a libCacheSim cache over requests in memory, for beside_libcachesim.py: nothing is read while the clock runs, and what
// is written per request is what tells one request from the next. No header of libCacheSim is needed: the caller says
// where things are, having found them out by looking.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef bool (*get_function)(void *cache, const void *request);

// Where the cache has its function, and a request its block and its next use.
struct places {
    size_t get, id, next;
};

uint64_t replay(void *cache, unsigned char *request, const struct places *at, const uint64_t *ids, const int64_t *next,
                size_t count) {
    get_function get;
    uint64_t misses = 0;
    memcpy(&get, (unsigned char *)cache + at->get, sizeof get);
    for (size_t n = 0; n < count; n++) {
        memcpy(request + at->id, &ids[n], sizeof ids[n]);
        memcpy(request + at->next, &next[n], sizeof next[n]);
        misses += !get(cache, request);
    }
    return misses;
}
