// Locks, semaphores and barriers.

import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.shared.SharedCount;

final class Locks {
    static void addTo(Map<String, Main.Recipe> recipes) {
        recipes.put("mutex", Locks::mutex);
        recipes.put("mutex under contention", Locks::contention);
        recipes.put("mutex of a lost session", Locks::lostSession);
        recipes.put("revocable mutex", Locks::revocable);
        recipes.put("semaphore mutex", Locks::semaphoreMutex);
        recipes.put("read write lock", Locks::readWrite);
        recipes.put("multi lock", Locks::multiLock);
        recipes.put("semaphore", Locks::semaphore);
        recipes.put("counted semaphore", Locks::countedSemaphore);
        recipes.put("barrier", Locks::barrier);
        recipes.put("double barrier", Locks::doubleBarrier);
    }

    static void mutex(Main.Env env, String path) throws Exception {
        InterProcessMutex mine = new InterProcessMutex(env.one, path);
        InterProcessMutex theirs = new InterProcessMutex(env.other, path);
        mine.acquire();
        mine.acquire();
        Main.check(!theirs.acquire(200, TimeUnit.MILLISECONDS), "taken twice");
        mine.release();
        Main.check(!theirs.acquire(200, TimeUnit.MILLISECONDS), "released too early");
        Future<Boolean> waiting = env.async(() -> {
            boolean taken = theirs.acquire(10, TimeUnit.SECONDS);
            theirs.release();
            return taken;
        });
        Main.eventually(() -> mine.getParticipantNodes().size() == 2, "the other one in line");
        mine.release();
        Main.check(Main.get(waiting), "the release was not noticed");
    }

    static void contention(Main.Env env, String path) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger entries = new AtomicInteger();
        Future<?>[] workers = new Future<?>[8];
        for (int worker = 0; worker < workers.length; worker++) {
            InterProcessMutex mutex =
                    new InterProcessMutex(worker % 2 == 0 ? env.one : env.other, path);
            workers[worker] = env.async(() -> {
                for (int round = 0; round < 10; round++) {
                    mutex.acquire();
                    Main.same(1, inside.incrementAndGet(), "holders");
                    entries.incrementAndGet();
                    inside.decrementAndGet();
                    mutex.release();
                }
                return null;
            });
        }
        for (Future<?> worker : workers) {
            Main.get(worker);
        }
        Main.same(80, entries.get(), "entries");
    }

    static void lostSession(Main.Env env, String path) throws Exception {
        try (var doomed = env.client(1_000)) {
            new InterProcessMutex(doomed, path).acquire();
            doomed.getZookeeperClient().getZooKeeper().getTestable().injectSessionExpiration();
            doomed.getZookeeperClient().getZooKeeper().close();
            Main.check(new InterProcessMutex(env.one, path).acquire(10, TimeUnit.SECONDS),
                    "the lock outlived its session");
        }
    }

    static void revocable(Main.Env env, String path) throws Exception {
        InterProcessMutex mutex = new InterProcessMutex(env.one, path);
        AtomicInteger asked = new AtomicInteger();
        mutex.makeRevocable(lock -> asked.incrementAndGet());
        mutex.acquire();
        org.apache.curator.framework.recipes.locks.Revoker.attemptRevoke(env.other,
                mutex.getParticipantNodes().iterator().next());
        Main.eventually(() -> asked.get() > 0, "the request to give the lock up");
        mutex.release();
    }

    static void semaphoreMutex(Main.Env env, String path) throws Exception {
        InterProcessSemaphoreMutex mine = new InterProcessSemaphoreMutex(env.one, path);
        InterProcessSemaphoreMutex theirs = new InterProcessSemaphoreMutex(env.other, path);
        mine.acquire();
        Main.check(!theirs.acquire(200, TimeUnit.MILLISECONDS), "taken twice");
        mine.release();
        Main.check(theirs.acquire(10, TimeUnit.SECONDS), "free, but not to be had");
        theirs.release();
    }

    static void readWrite(Main.Env env, String path) throws Exception {
        InterProcessReadWriteLock mine = new InterProcessReadWriteLock(env.one, path);
        InterProcessReadWriteLock theirs = new InterProcessReadWriteLock(env.other, path);
        mine.readLock().acquire();
        Main.check(theirs.readLock().acquire(5, TimeUnit.SECONDS), "two readers");
        Main.check(!theirs.writeLock().acquire(200, TimeUnit.MILLISECONDS), "writer among readers");
        theirs.readLock().release();
        mine.readLock().release();
        mine.writeLock().acquire();
        Main.check(mine.readLock().acquire(5, TimeUnit.SECONDS), "the writer may read");
        Main.check(!theirs.readLock().acquire(200, TimeUnit.MILLISECONDS), "reader beside a writer");
        mine.readLock().release();
        mine.writeLock().release();
        Main.check(theirs.writeLock().acquire(5, TimeUnit.SECONDS), "free, but not to be had");
        theirs.writeLock().release();
    }

    static void multiLock(Main.Env env, String path) throws Exception {
        InterProcessMultiLock all =
                new InterProcessMultiLock(env.one, Arrays.asList(path + "/a", path + "/b"));
        InterProcessMutex part = new InterProcessMutex(env.other, path + "/b");
        all.acquire();
        Main.check(!part.acquire(200, TimeUnit.MILLISECONDS), "a part of it was free");
        all.release();
        Main.check(part.acquire(5, TimeUnit.SECONDS), "a part of it was not released");
        Main.check(!all.acquire(200, TimeUnit.MILLISECONDS), "taken without its part");
        part.release();
    }

    static void semaphore(Main.Env env, String path) throws Exception {
        InterProcessSemaphoreV2 mine = new InterProcessSemaphoreV2(env.one, path, 3);
        InterProcessSemaphoreV2 theirs = new InterProcessSemaphoreV2(env.other, path, 3);
        var two = mine.acquire(2);
        Lease third = theirs.acquire(5, TimeUnit.SECONDS);
        Main.check(third != null, "the third lease");
        Main.check(theirs.acquire(200, TimeUnit.MILLISECONDS) == null, "a fourth of three");
        mine.returnAll(two);
        Lease again = theirs.acquire(5, TimeUnit.SECONDS);
        Main.check(again != null, "a returned lease");
        theirs.returnLease(again);
        theirs.returnLease(third);
    }

    static void countedSemaphore(Main.Env env, String path) throws Exception {
        try (SharedCount count = new SharedCount(env.one, path + "-count", 1)) {
            count.start();
            InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(env.one, path, count);
            Lease first = semaphore.acquire();
            Main.check(semaphore.acquire(200, TimeUnit.MILLISECONDS) == null, "a second of one");
            count.setCount(2);
            Lease second = semaphore.acquire(10, TimeUnit.SECONDS);
            Main.check(second != null, "the raised limit was not noticed");
            semaphore.returnLease(first);
            semaphore.returnLease(second);
        }
    }

    static void barrier(Main.Env env, String path) throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(env.one, path);
        barrier.setBarrier();
        DistributedBarrier waiting = new DistributedBarrier(env.other, path);
        Main.check(!waiting.waitOnBarrier(200, TimeUnit.MILLISECONDS), "passed a closed barrier");
        Future<Boolean> passed = env.async(() -> waiting.waitOnBarrier(10, TimeUnit.SECONDS));
        barrier.removeBarrier();
        Main.check(Main.get(passed), "the barrier's end was not noticed");
    }

    static void doubleBarrier(Main.Env env, String path) throws Exception {
        AtomicInteger inside = new AtomicInteger();
        Future<?>[] members = new Future<?>[5];
        for (int member = 0; member < members.length; member++) {
            DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(
                    member % 2 == 0 ? env.one : env.other, path, members.length);
            members[member] = env.async(() -> {
                Main.check(barrier.enter(10, TimeUnit.SECONDS), "entered");
                inside.incrementAndGet();
                Main.check(barrier.leave(10, TimeUnit.SECONDS), "left");
                Main.same(5, inside.get(), "those who had entered when the first one left");
                return null;
            });
        }
        for (Future<?> member : members) {
            Main.get(member);
        }
    }
}
