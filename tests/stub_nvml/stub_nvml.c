/* A libnvidia-ml.so.1 that tells what a script file says.
 *
 * STUB_NVML names the file. It is read again on every call, so that a test changes the machine by
 * replacing the file (write another, rename it). One statement per line, words separated by one
 * blank; a name or UUID may hold bytes as \xNN.
 *
 *   driver VERSION            nvml VERSION
 *   gpu UUID                  begins a physical GPU; what follows describes it
 *     name REST-OF-LINE       minor N           pci DOMAIN:BUS:SLOT.F
 *     memory BYTES RESERVED   compute MAJOR MINOR
 *     mig 0|1                 NVML's MIG mode; without it MIG is not supported
 *     instance UUID GI CI MEMORY SLICES REST-OF-LINE-NAME
 *     used BYTES              of the instance that stands last before it, otherwise of the GPU
 *     process PID BYTES PERCENT KINDS   of the instance that stands last before it, otherwise of the
 *                             GPU; BYTES or PERCENT of -1: not told; KINDS: any of c, g, m for the
 *                             lists of compute, graphics and MPS compute processes
 *     utilisation PERCENT     ecc COUNT         recovery ACTION   unless written: not supported
 *     ecc_total COUNT         remap PENDING FAILED                unless written: not supported
 *   event TOTAL INDEX TYPE DATA GI CI   since the start TOTAL such events (8: XID DATA, 2: ECC)
 *                             have come for that GPU (-1: of no instance). An event set hears of
 *                             those that come after a GPU was registered with it; a line keeps
 *                             its place among the lines of this kind.
 *   error CALL INDEX CODE     that call fails for that GPU (-1: calls to no GPU, * : any)
 *   hang CALL INDEX           it comes back once the line is gone
 *   crash CALL INDEX          it ends the process with a segmentation fault
 *   print CALL INDEX          it writes a line to standard output first
 *   limits none|dmem|misc     what the driver limits memory with; none unless written
 *   unprivileged              the caller may not set limits
 *   charge BYTES PATH         what the processes in that very cgroup hold of the GPU before it
 *
 * CALL is the exported name. Built with -DSTUB_OLD the library lacks what drivers before 470 do, and
 * with -DSTUB_610 what drivers before 615 do.
 *
 * The limits of cgroups are kept in the file STUB_NVML.limits, a line `INDEX SOFT HARD PATH` each: as
 * in the driver, whatever process set them. With dmem a cgroup can have them if its parent's
 * cgroup.subtree_control names dmem, and its file dmem.max, where there is one, is written too; with
 * misc the nearest ancestor with a limit counts.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    TIMED_OUT = 10, OPERATING_SYSTEM = 17, MOST_CHARGES = 64, MOST_LIMITS = 1024,
    MOST_GPUS = 16, MOST_INSTANCES = 7, MOST_EVENTS = 32, MOST_PROCESSES = 1024, TEXT = 96, LINE = 512, NO_GPU = -1
};

typedef struct {
    char uuid[TEXT], name[TEXT];
    unsigned gi, ci, slices;
    unsigned long long memory, used;
} Instance;

typedef struct {
    char uuid[TEXT], name[TEXT], pci[32];
    int minor, major, compute_minor, mig, instances, utilisation, ecc, recovery;
    int ecc_total, remap_pending, remap_failed;
    unsigned long long memory, reserved, used;
    Instance instance[MOST_INSTANCES];
} Gpu;

typedef struct {
    int index, position, percent;
    unsigned pid;
    long long bytes;
    char kinds[8];
} Process;

typedef struct {
    int total, index, gi, ci;
    unsigned long long type, data;
} Event;

typedef struct {
    int index;
    unsigned long long bytes;
    char path[LINE];
} Charge;

typedef enum { NONE, DMEM, MISC } Backend;

typedef struct {
    char driver[TEXT], nvml[TEXT];
    int gpus, events, processes, charges, unprivileged;
    Backend backend;
    Charge charge[MOST_CHARGES];
    Gpu gpu[MOST_GPUS];
    Event event[MOST_EVENTS];
    Process process[MOST_PROCESSES];
} Machine;

/* A handle is a number: 1 + index for a GPU, and 256 * (1 + position) more for its instances. */
typedef uintptr_t Handle;

static int index_of(Handle handle) { return (int)(handle % 256) - 1; }

static int position_of(Handle handle) { return (int)(handle / 256) - 1; }

static Handle handle_of(int index, int position)
{
    return (Handle)(index + 1) + 256 * (Handle)(position + 1);
}

/* Copies a text and turns \xNN into bytes. */
static void copy(char *to, const char *from)
{
    size_t used = 0;
    while (*from && used < TEXT - 1) {
        unsigned byte;
        if (sscanf(from, "\\x%2x", &byte) == 1) {
            to[used++] = (char)byte;
            from += 4;
        } else {
            to[used++] = *from++;
        }
    }
    to[used] = '\0';
}

static void describe(Machine *machine, Gpu *gpu, const char *word, const char *rest)
{
    if (!strcmp(word, "driver"))
        copy(machine->driver, rest);
    else if (!strcmp(word, "nvml"))
        copy(machine->nvml, rest);
    else if (!strcmp(word, "event") && machine->events < MOST_EVENTS) {
        Event *event = &machine->event[machine->events++];
        sscanf(rest, "%d %d %llu %llu %d %d", &event->total, &event->index, &event->type,
               &event->data, &event->gi, &event->ci);
    } else if (!strcmp(word, "limits"))
        machine->backend = !strcmp(rest, "dmem") ? DMEM : !strcmp(rest, "misc") ? MISC : NONE;
    else if (!strcmp(word, "unprivileged"))
        machine->unprivileged = 1;
    else if (!gpu)
        return;
    else if (!strcmp(word, "charge") && machine->charges < MOST_CHARGES) {
        Charge *charge = &machine->charge[machine->charges++];
        charge->index = machine->gpus - 1;
        sscanf(rest, "%llu %511[^\n]", &charge->bytes, charge->path);
    }
    else if (!strcmp(word, "process") && machine->processes < MOST_PROCESSES) {
        Process *process = &machine->process[machine->processes++];
        process->index = machine->gpus - 1;
        process->position = gpu->instances - 1;
        sscanf(rest, "%u %lld %d %7s", &process->pid, &process->bytes, &process->percent,
               process->kinds);
    }
    else if (!strcmp(word, "name"))
        copy(gpu->name, rest);
    else if (!strcmp(word, "minor"))
        gpu->minor = atoi(rest);
    else if (!strcmp(word, "pci"))
        snprintf(gpu->pci, sizeof gpu->pci, "%.31s", rest);
    else if (!strcmp(word, "memory"))
        sscanf(rest, "%llu %llu", &gpu->memory, &gpu->reserved);
    else if (!strcmp(word, "compute"))
        sscanf(rest, "%d %d", &gpu->major, &gpu->compute_minor);
    else if (!strcmp(word, "mig"))
        gpu->mig = atoi(rest);
    else if (!strcmp(word, "utilisation"))
        gpu->utilisation = atoi(rest);
    else if (!strcmp(word, "ecc"))
        gpu->ecc = atoi(rest);
    else if (!strcmp(word, "ecc_total"))
        gpu->ecc_total = atoi(rest);
    else if (!strcmp(word, "remap"))
        sscanf(rest, "%d %d", &gpu->remap_pending, &gpu->remap_failed);
    else if (!strcmp(word, "recovery"))
        gpu->recovery = atoi(rest);
    else if (!strcmp(word, "used"))
        *(gpu->instances ? &gpu->instance[gpu->instances - 1].used : &gpu->used) =
            strtoull(rest, NULL, 10);
    else if (!strcmp(word, "instance") && gpu->instances < MOST_INSTANCES) {
        Instance *made = &gpu->instance[gpu->instances++];
        char uuid[TEXT], name[TEXT] = "";
        sscanf(rest, "%95s %u %u %llu %u %95[^\n]", uuid, &made->gi, &made->ci, &made->memory,
               &made->slices, name);
        copy(made->uuid, uuid);
        copy(made->name, name);
    }
}

typedef struct {
    int error, hang, crash, print;
} Trouble;

/* Reads the script: the machine, and what is to happen in this call for this GPU. */
static Trouble read_script(Machine *machine, const char *call, int index)
{
    Trouble trouble = {SUCCESS, 0, 0, 0};
    char line[LINE];
    Gpu *gpu = NULL;
    const char *path = getenv("STUB_NVML");
    FILE *script = path ? fopen(path, "re") : NULL;
    memset(machine, 0, sizeof *machine);
    while (script && fgets(line, sizeof line, script)) {
        char word[32] = "", named[64] = "", which[16] = "", *rest;
        int code = 0;
        line[strcspn(line, "\n")] = '\0';
        rest = line + strspn(line, " ");
        sscanf(rest, "%31s %63s %15s %d", word, named, which, &code);
        rest += strlen(word);
        rest += *rest == ' ';
        if (!strcmp(word, "gpu") && machine->gpus < MOST_GPUS) {
            gpu = &machine->gpu[machine->gpus++];
            gpu->mig = gpu->utilisation = gpu->ecc = gpu->recovery = -1;
            gpu->ecc_total = gpu->remap_pending = -1;
            gpu->minor = machine->gpus - 1;
            copy(gpu->uuid, rest);
        }
        describe(machine, gpu, word, rest);
        if (strcmp(named, call) || (strcmp(which, "*") && atoi(which) != index))
            continue;
        if (!strcmp(word, "error"))
            trouble.error = code;
        trouble.hang |= !strcmp(word, "hang");
        trouble.crash |= !strcmp(word, "crash");
        trouble.print |= !strcmp(word, "print");
    }
    if (script)
        fclose(script);
    return trouble;
}

/* The beginning of every call: reads the script, and does what it says for this call. */
static int enter(Machine *machine, const char *call, int index)
{
    Trouble trouble = read_script(machine, call, index);
    while (trouble.hang) {
        poll(NULL, 0, 10);
        trouble = read_script(machine, call, index);
    }
    if (trouble.print) {
        printf("stub: %s\n", call);
        fflush(stdout);
    }
    if (trouble.crash)
        raise(SIGSEGV);
    return trouble.error;
}

/* The same for a call with a handle; finds the GPU, and the instance where the handle is one. */
static int enter_for(Machine *machine, const char *call, Handle handle, Gpu **gpu, Instance **inst)
{
    int index = index_of(handle), position = position_of(handle);
    int failed = enter(machine, call, index);
    *gpu = NULL;
    *inst = NULL;
    if (failed)
        return failed;
    if (index < 0 || index >= machine->gpus)
        return INVALID_ARGUMENT;
    *gpu = &machine->gpu[index];
    if (position >= (*gpu)->instances)
        return NOT_FOUND;
    if (position >= 0)
        *inst = &(*gpu)->instance[position];
    return SUCCESS;
}

#define ENTER(index)                                                                               \
    Machine machine;                                                                               \
    int failed = enter(&machine, __func__, index);                                                 \
    if (failed)                                                                                    \
        return failed

#define ENTER_FOR(handle)                                                                          \
    Machine machine;                                                                               \
    Gpu *gpu;                                                                                      \
    Instance *inst;                                                                                \
    int failed = enter_for(&machine, __func__, handle, &gpu, &inst);                               \
    if (failed)                                                                                    \
        return failed;                                                                             \
    (void)inst

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    ENTER(NO_GPU);
    return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code)
{
    return code == 15 ? "GPU is lost" : "error of the stub";
}

int nvmlSystemGetDriverVersion(char *text, unsigned length)
{
    ENTER(NO_GPU);
    snprintf(text, length, "%s", machine.driver);
    return SUCCESS;
}

int nvmlSystemGetNVMLVersion(char *text, unsigned length)
{
    ENTER(NO_GPU);
    snprintf(text, length, "%s", machine.nvml);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    ENTER(NO_GPU);
    *count = (unsigned)machine.gpus;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle)
{
    ENTER((int)index);
    if ((int)index >= machine.gpus)
        return INVALID_ARGUMENT;
    *handle = handle_of((int)index, -1);
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *handle)
{
    ENTER(NO_GPU);
    for (int index = 0; index < machine.gpus; index++)
        for (int position = -1; position < machine.gpu[index].instances; position++) {
            Gpu *gpu = &machine.gpu[index];
            if (strcmp(position < 0 ? gpu->uuid : gpu->instance[position].uuid, uuid))
                continue;
            *handle = handle_of(index, position);
            return enter(&machine, __func__, index);
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Handle handle, char *text, unsigned length)
{
    ENTER_FOR(handle);
    snprintf(text, length, "%s", inst ? inst->uuid : gpu->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(Handle handle, char *text, unsigned length)
{
    ENTER_FOR(handle);
    snprintf(text, length, "%s", inst && inst->name[0] ? inst->name : gpu->name);
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(Handle handle, unsigned *minor)
{
    ENTER_FOR(handle);
    *minor = (unsigned)gpu->minor;
    return SUCCESS;
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, pci_device, pci_subsystem;
    char bus_id[32];
} PciInfo;

int nvmlDeviceGetPciInfo_v3(Handle handle, PciInfo *info)
{
    ENTER_FOR(handle);
    memset(info, 0, sizeof *info);
    memcpy(info->bus_id, gpu->pci, sizeof info->bus_id);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(Handle handle, int *major, int *minor)
{
    ENTER_FOR(handle);
    *major = gpu->major;
    *minor = gpu->compute_minor;
    return gpu->major ? SUCCESS : NOT_SUPPORTED;
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

int nvmlDeviceGetMemoryInfo(Handle handle, Memory *memory)
{
    ENTER_FOR(handle);
    memory->total = inst ? inst->memory : gpu->memory;
    memory->used = inst ? inst->used : gpu->used + gpu->reserved;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

typedef struct {
    unsigned gpu, memory;
} Utilisation;

int nvmlDeviceGetUtilizationRates(Handle handle, Utilisation *rates)
{
    ENTER_FOR(handle);
    if (inst || gpu->instances || gpu->utilisation < 0)
        return NOT_SUPPORTED;
    rates->gpu = (unsigned)gpu->utilisation;
    rates->memory = 0;
    return SUCCESS;
}

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gi, ci;
} ProcessInfo;

/* Lists the processes of one kind; says how many there are where there is no room for them. */
static int list_processes(Machine *machine, Handle handle, char kind, unsigned *count,
                          ProcessInfo *infos)
{
    unsigned found = 0, room = infos ? *count : 0;
    for (int each = 0; each < machine->processes; each++) {
        Process *process = &machine->process[each];
        if (process->index != index_of(handle) || process->position != position_of(handle) ||
            !strchr(process->kinds, kind))
            continue;
        if (found < room) {
            infos[found].pid = process->pid;
            infos[found].used = (unsigned long long)process->bytes; /* -1: not available */
            infos[found].gi = infos[found].ci = 0xFFFFFFFF;
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define LIST(name, kind)                                                                           \
    int name(Handle handle, unsigned *count, ProcessInfo *infos)                                   \
    {                                                                                              \
        ENTER_FOR(handle);                                                                         \
        return list_processes(&machine, handle, kind, count, infos);                               \
    }

LIST(nvmlDeviceGetComputeRunningProcesses_v2, 'c')
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, 'g')
#ifndef STUB_OLD
LIST(nvmlDeviceGetComputeRunningProcesses_v3, 'c')
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, 'g')
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'm')
#endif

typedef struct {
    unsigned pid;
    unsigned long long time;
    unsigned multiprocessors, memory, encoder, decoder;
} ProcessSample;

/* Every process that is busy; NOT_FOUND where none is. The time counts the calls. */
int nvmlDeviceGetProcessUtilization(Handle handle, ProcessSample *samples, unsigned *count,
                                    unsigned long long since)
{
    unsigned found = 0, room = samples ? *count : 0;
    ENTER_FOR(handle);
    if (inst || gpu->instances)
        return NOT_SUPPORTED;
    for (int each = 0; each < machine.processes; each++) {
        Process *process = &machine.process[each];
        if (process->index != index_of(handle) || !process->percent)
            continue;
        if (process->percent < 0)
            return NOT_SUPPORTED;
        if (found < room) {
            memset(&samples[found], 0, sizeof *samples);
            samples[found].pid = process->pid;
            samples[found].time = since + 1;
            samples[found].multiprocessors = (unsigned)process->percent;
        }
        found++;
    }
    *count = found;
    if (!found)
        return NOT_FOUND;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(Handle handle, int kind, int counter, unsigned long long *count)
{
    ENTER_FOR(handle);
    if (kind != 1 || counter < 0 || counter > 1) /* uncorrected; volatile or aggregate */
        return INVALID_ARGUMENT;
    int found = counter ? gpu->ecc_total : gpu->ecc;
    *count = (unsigned long long)found;
    return found < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetRemappedRows(Handle handle, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failure)
{
    ENTER_FOR(handle);
    *corrected = *uncorrected = 0;
    *pending = gpu->remap_pending > 0;
    *failure = gpu->remap_failed > 0;
    return gpu->remap_pending < 0 ? NOT_SUPPORTED : SUCCESS;
}

typedef struct {
    int descriptor; /* inotify, on the folder of the script */
    unsigned long long types[MOST_GPUS];
    int heard[MOST_EVENTS];
} EventSet;

int nvmlEventSetCreate(EventSet **made)
{
    char folder[PATH_MAX], *slash;
    ENTER(NO_GPU);
    snprintf(folder, sizeof folder, "%s", getenv("STUB_NVML"));
    slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    *made = calloc(1, sizeof **made);
    (*made)->descriptor = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    inotify_add_watch((*made)->descriptor, folder, IN_MOVED_TO | IN_CLOSE_WRITE);
    return SUCCESS;
}

int nvmlEventSetFree(EventSet *set)
{
    close(set->descriptor);
    free(set);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(Handle handle, unsigned long long *types)
{
    ENTER_FOR(handle);
    *types = gpu->ecc < 0 ? 8 | 4 : 8 | 4 | 2 | 1;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(Handle handle, unsigned long long types, EventSet *set)
{
    ENTER_FOR(handle);
    if (inst || (types & ~(gpu->ecc < 0 ? 8 | 4 : 8 | 4 | 2 | 1)))
        return NOT_SUPPORTED;
    set->types[index_of(handle)] = types;
    for (int line = 0; line < machine.events; line++)
        if (machine.event[line].index == index_of(handle))
            set->heard[line] = machine.event[line].total;
    return SUCCESS;
}

#ifndef STUB_OLD
typedef struct {
    Handle device;
    unsigned long long type, data;
    unsigned gi, ci;
} EventData;

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Looks for an event that the set has not heard of; -1 for none, otherwise what the call returns. */
static int next_event(EventSet *set, EventData *data)
{
    Machine machine;
    int failed = enter(&machine, "nvmlEventSetWait_v2", NO_GPU);
    for (int index = 0; index < machine.gpus && !failed; index++)
        if (set->types[index])
            failed = enter(&machine, "nvmlEventSetWait_v2", index);
    if (failed)
        return failed;
    for (int line = 0; line < machine.events; line++) {
        Event *event = &machine.event[line];
        if (event->index < 0 || event->index >= MOST_GPUS || set->heard[line] >= event->total ||
            !(set->types[event->index] & event->type))
            continue;
        set->heard[line]++;
        data->device = handle_of(event->index, -1);
        data->type = event->type;
        data->data = event->data;
        data->gi = (unsigned)event->gi;
        data->ci = (unsigned)event->ci;
        return SUCCESS;
    }
    return -1;
}

int nvmlEventSetWait_v2(EventSet *set, EventData *data, unsigned timeout)
{
    long end = milliseconds() + (long)timeout;
    for (;;) {
        char drained[4096];
        struct pollfd changed = {set->descriptor, POLLIN, 0};
        long left = end - milliseconds();
        int found = next_event(set, data);
        if (found >= 0)
            return found;
        if (left <= 0)
            return TIMED_OUT;
        if (poll(&changed, 1, (int)left) > 0)
            while (read(set->descriptor, drained, sizeof drained) > 0)
                ;
    }
}

typedef struct {
    unsigned field, scope;
    long long time, latency;
    unsigned type, failed;
    unsigned long long value;
} FieldValue;

int nvmlDeviceGetFieldValues(Handle handle, int count, FieldValue *values)
{
    ENTER_FOR(handle);
    for (int each = 0; each < count; each++) {
        int known = values[each].field == 230 && gpu->recovery >= 0;
        values[each].failed = known ? SUCCESS : NOT_SUPPORTED;
        values[each].type = 1; /* an unsigned int */
        values[each].value = known ? (unsigned)gpu->recovery : 0;
    }
    return SUCCESS;
}

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} MemoryV2;

int nvmlDeviceGetMemoryInfo_v2(Handle handle, MemoryV2 *memory)
{
    ENTER_FOR(handle);
    if (memory->version != (sizeof *memory | 2u << 24))
        return 25; /* ARGUMENT_VERSION_MISMATCH */
    memory->total = inst ? inst->memory : gpu->memory;
    memory->reserved = inst ? 0 : gpu->reserved;
    memory->used = inst ? inst->used : gpu->used;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Handle handle, unsigned *current, unsigned *pending)
{
    ENTER_FOR(handle);
    *current = *pending = gpu->mig == 1;
    return gpu->mig < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Handle handle, unsigned *count)
{
    ENTER_FOR(handle);
    *count = MOST_INSTANCES;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, unsigned position, Handle *found)
{
    ENTER_FOR(handle);
    /* Position 0 is always a gap, as after an instance was destroyed. */
    if (position < 1 || (int)position > gpu->instances)
        return NOT_FOUND;
    *found = handle_of(index_of(handle), (int)position - 1);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(Handle handle, unsigned *id)
{
    ENTER_FOR(handle);
    *id = inst ? inst->gi : 0;
    return inst ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetComputeInstanceId(Handle handle, unsigned *id)
{
    ENTER_FOR(handle);
    *id = inst ? inst->ci : 0;
    return inst ? SUCCESS : INVALID_ARGUMENT;
}

typedef struct {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gi_slices, ci_slices;
    unsigned long long megabytes;
} Attributes;

int nvmlDeviceGetAttributes_v2(Handle handle, Attributes *attributes)
{
    ENTER_FOR(handle);
    if (!inst)
        return NOT_SUPPORTED;
    memset(attributes, 0, sizeof *attributes);
    attributes->gi_slices = attributes->ci_slices = inst->slices;
    attributes->megabytes = inst->memory >> 20;
    return SUCCESS;
}
#endif

#if !defined STUB_OLD && !defined STUB_610
#define NO_LIMIT 0xFFFFFFFFFFFFFFFFull

typedef struct {
    int index;
    unsigned long long soft, hard;
    char path[LINE];
} Limit;

static int read_limits(Limit *limits, char *name)
{
    int count = 0;
    snprintf(name, PATH_MAX, "%.4000s.limits", getenv("STUB_NVML"));
    FILE *file = fopen(name, "re");
    while (file && count < MOST_LIMITS && fscanf(file, "%d %llu %llu %511[^\n]", &limits[count].index,
                                                 &limits[count].soft, &limits[count].hard, limits[count].path) == 4)
        count++;
    if (file)
        fclose(file);
    return count;
}

static int below(const char *path, const char *ancestor)
{
    size_t length = strlen(ancestor);
    return !strncmp(path, ancestor, length) && (!path[length] || path[length] == '/');
}

/* The limit of a cgroup itself, or with `nearest` of the closest ancestor that has one. */
static Limit *find_limit(Limit *limits, int count, int index, const char *path, int nearest)
{
    Limit *found = NULL;
    for (int each = 0; each < count; each++)
        if (limits[each].index == index &&
            (nearest ? below(path, limits[each].path) : !strcmp(path, limits[each].path)) &&
            (!found || strlen(limits[each].path) > strlen(found->path)))
            found = &limits[each];
    return found;
}

/* Whether the directory can be opened, and has the controller where that is needed. */
static int check_cgroup(Machine *machine, const char *path)
{
    char file[PATH_MAX], enabled[LINE] = "";
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return OPERATING_SYSTEM;
    close(folder);
    snprintf(file, sizeof file, "%.4000s/../cgroup.subtree_control", path);
    FILE *control = machine->backend == DMEM ? fopen(file, "re") : NULL;
    if (control) {
        if (!fgets(enabled, sizeof enabled, control))
            enabled[0] = '\0';
        fclose(control);
    }
    return machine->backend == DMEM && !strstr(enabled, "dmem") ? NOT_FOUND : SUCCESS;
}

/* With misc only what has a limit is charged, to the nearest; with dmem every ancestor is. */
static unsigned long long charged(Machine *machine, int index, const char *path, Limit *limits, int count)
{
    unsigned long long sum = 0;
    for (int each = 0; each < machine->charges; each++) {
        Charge *charge = &machine->charge[each];
        Limit *limit = find_limit(limits, count, index, charge->path, 1);
        int counts = machine->backend == DMEM ? below(charge->path, path) : limit && !strcmp(limit->path, path);
        if (charge->index == index && counts)
            sum += charge->bytes;
    }
    return sum;
}

typedef struct {
    const char *path;
    unsigned long long soft, hard;
} SetLimits;

int nvmlDeviceSetMemoryLimits_v1(Handle handle, SetLimits *asked)
{
    static Limit limits[MOST_LIMITS + 1];
    char name[PATH_MAX], draft[PATH_MAX + 8], file[PATH_MAX];
    ENTER_FOR(handle);
    if (!asked || !asked->path)
        return INVALID_ARGUMENT;
    if (inst || machine.backend == NONE)
        return NOT_SUPPORTED;
    if (asked->soft > asked->hard || (asked->hard != NO_LIMIT && asked->hard > gpu->memory))
        return INVALID_ARGUMENT;
    if (machine.unprivileged)
        return NO_PERMISSION;
    if ((failed = check_cgroup(&machine, asked->path)))
        return failed;
    int index = index_of(handle), count = read_limits(limits, name);
    Limit *limit = find_limit(limits, count, index, asked->path, 0);
    if (!limit)
        limit = &limits[count++];
    else if (machine.backend == MISC && asked->hard < charged(&machine, index, asked->path, limits, count))
        return INVALID_ARGUMENT;
    *limit = (Limit){index, asked->soft, asked->hard, ""};
    snprintf(limit->path, sizeof limit->path, "%s", asked->path);
    snprintf(draft, sizeof draft, "%s.draft", name);
    FILE *table = fopen(draft, "we");
    if (!table)
        return OPERATING_SYSTEM;
    for (int each = 0; each < count; each++)
        if (limits[each].soft || limits[each].hard != NO_LIMIT)
            fprintf(table, "%d %llu %llu %s\n", limits[each].index, limits[each].soft, limits[each].hard,
                    limits[each].path);
    fclose(table);
    rename(draft, name);
    snprintf(file, sizeof file, "%.4000s/dmem.max", asked->path);
    FILE *written = machine.backend == DMEM && !access(file, F_OK) ? fopen(file, "we") : NULL;
    if (written) {
        if (asked->hard == NO_LIMIT)
            fprintf(written, "nvidia/%s/vidmem max\n", gpu->pci);
        else
            fprintf(written, "nvidia/%s/vidmem %llu\n", gpu->pci, asked->hard);
        fclose(written);
    }
    return SUCCESS;
}

typedef struct {
    const char *path;
    unsigned long long soft, hard, used;
} GetLimits;

int nvmlDeviceGetMemoryLimits_v1(Handle handle, GetLimits *asked)
{
    static Limit limits[MOST_LIMITS + 1];
    char name[PATH_MAX];
    ENTER_FOR(handle);
    if (!asked || !asked->path)
        return INVALID_ARGUMENT;
    if (inst || machine.backend == NONE)
        return NOT_SUPPORTED;
    if ((failed = check_cgroup(&machine, asked->path)))
        return failed;
    int index = index_of(handle), count = read_limits(limits, name), nearest = machine.backend == MISC;
    Limit *limit = find_limit(limits, count, index, asked->path, nearest);
    if (!limit && nearest)
        return NOT_SUPPORTED;
    asked->soft = limit ? limit->soft : 0;
    asked->hard = limit ? limit->hard : NO_LIMIT;
    asked->used = charged(&machine, index, limit ? limit->path : asked->path, limits, count);
    return SUCCESS;
}
#endif
