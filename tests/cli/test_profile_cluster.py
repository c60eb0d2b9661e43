"""`temper profile --cluster FILE`: a node's power from a cluster file, and files without it."""
import json

from harness import MODEL, Test, main

QUICK = ("--ranks", "1", "--threads", "1", "--budget", "0.3", "--micro-batches", "1",
         "--precision", "fp32", "--relative-error", "1")


class ProfileCluster(Test):
    def cluster(self, **device):
        group = {"nodes": 3, "node_devices": 4, "device": {"name": "card", **device}}
        (self.folder / "c.json").write_text(json.dumps(
            {"format": "temper-cluster", "version": 1, "name": "c", "groups": [group]}))

    def profile(self, *options):
        return ("profile", *MODEL, "--store", "p.db", *QUICK, "--cluster", "c.json", *options)

    def test_power_of_a_node_is_that_of_its_devices(self):
        self.cluster(idle_w=12.5, peak_w=40)
        rows = self.json(*self.profile())["measurements"]
        idle = next(row for row in rows if row["metric"] == "idle_power")
        if idle["provenance"] == "measured":
            self.skipTest("this host has energy counters, which come first")
        self.assertEqual((idle["mean"], idle["provenance"]), (50.0, "modelled"))
        active = next(row for row in rows if row["metric"] == "active_power")
        self.assertGreater(active["mean"], 50)
        self.assertLessEqual(active["mean"], 160)

    def test_watts_on_the_command_line_come_first(self):
        self.cluster()
        rows = self.json(*self.profile("--idle-watts", "7", "--active-watts", "9"))["measurements"]
        idle = next(row for row in rows if row["metric"] == "idle_power")
        if idle["provenance"] != "measured":
            self.assertEqual(idle["mean"], 7.0)

    def test_a_file_without_power_is_refused_before_anything_is_measured(self):
        self.cluster()
        self.refused(1, ["c.json", "groups[0].device.peak_w", "missing"], *self.profile())
        self.cluster(peak_w=-3)
        self.refused(1, ["c.json", "groups[0].device.peak_w"], *self.profile())
        (self.folder / "c.json").unlink()
        self.refused(1, ["c.json"], *self.profile())
        self.assertFalse((self.folder / "p.db").exists())


if __name__ == "__main__":
    main()
