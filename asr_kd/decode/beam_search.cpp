// Beam search over a graph without input epsilons, frame by frame, to a lattice; see kernel.py.
//
// What is pruned is what k2's intersect_dense_pruned prunes (k2/csrc/intersect_dense_pruned.cu), with the same
// operations on the same numbers, so that the lattices are the same to the bit: the beam follows the number of active
// states, and every 20 frames the last 30 are pruned by the lattice beam as if all states at their end were final.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int64_t kWindow = 30, kShift = 20;  // frames that are pruned at once, and from one pruning to the next
constexpr int64_t kNearEnd = 5;               // from here on k2 keeps more states, in case few are final

struct Arc {
  int32_t source, target, label;  // label: column of the scores + 1; -1: a path ends
  float score;
};

struct State {
  int32_t state;  // of the graph
  float forward, backward;
};

struct Link {
  int32_t source, target;  // places among the states of this frame and of the next
  int32_t arc;
  float score;
};

struct Candidate {
  int32_t source, target, arc;  // place, state, arc
  float score, end;
};

// An array that grows without being filled or copied.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer &&) = default;
  Buffer &operator=(Buffer &&) = default;
  explicit Buffer(const Buffer &other) {
    Reserve(other.size);
    size = other.size;
    std::copy(other.data_.get(), other.data_.get() + size, data_.get());
  }
  void Reserve(int64_t capacity) {
    if (capacity <= capacity_) return;
    capacity = std::max(capacity, capacity_ + capacity_ / 2);
    data_.reset(new T[capacity]);
    capacity_ = capacity;
  }
  T &operator[](int64_t i) { return data_[i]; }
  const T &operator[](int64_t i) const { return data_[i]; }
  T *begin() { return data_.get(); }
  T *end() { return data_.get() + size; }
  int64_t size = 0;

 private:
  std::unique_ptr<T[]> data_;
  int64_t capacity_ = 0;
};

struct Frame {
  Buffer<State> states;
  Buffer<Link> links;  // by source
};

class Search {
 public:
  Search(const int32_t *splits, int32_t num_states) : splits_(splits), final_(num_states - 1), places_(num_states, -1) {}

  // The number of links of the lattice.
  int64_t Run(const Arc *arcs, const float *scores, int64_t num_frames, int64_t columns, float scale, float beam,
              float lattice_beam, int32_t min_active, int32_t max_active) {
    arcs_ = arcs;
    const int64_t ends = num_frames + 1;  // with the frame in which paths end
    frames_.clear();
    frames_.resize(ends + 1);
    frames_[0].states.Reserve(1);
    frames_[0].states.size = 1;
    frames_[0].states[0] = {0, 0.0f, kNone};
    lattice_beam_ = lattice_beam;
    pruned_ = 0;
    row_.resize(columns + 2);
    float wide = beam;
    int64_t window = kShift - kWindow;  // its first frame
    for (int64_t t = 0; t < ends; t++) {
      wide = NextBeam(wide, beam, frames_[t].states.size, min_active, max_active, t + kNearEnd >= ends);
      if (t < num_frames) {
        row_[0] = kNone;  // that of label -1
        for (int64_t c = 0; c < columns; c++) row_[c + 2] = scores[t * columns + c] * scale;
      } else {
        std::fill(row_.begin(), row_.end(), kNone);
        row_[0] = 0.0f;
        wide = 1.0e+10;
      }
      if (!spare_.empty()) {
        std::swap(frames_[t + 1].states, spare_.back().states);
        std::swap(frames_[t].links, spare_.back().links);
        spare_.pop_back();
      }
      Expand(frames_[t], wide);
      Enter(frames_[t], frames_[t + 1], wide);
      if (t + 1 == window + kWindow || t + 1 == ends) {
        Prune(std::max<int64_t>(0, window), t + 1);
        window += kShift;
      }
    }
    int64_t count = 0;
    for (const Frame &frame : frames_) count += frame.links.size;
    return count;
  }

  // The lattice: (source, target, label), arc of the graph, and score of each link.
  void Take(int32_t *links, int32_t *numbers, float *scores) {
    int64_t n = 0;
    int32_t first = 0;
    for (size_t t = 0; t + 1 < frames_.size(); t++) {
      const int32_t next = first + frames_[t].states.size;
      for (const Link &link : frames_[t].links) {
        links[3 * n] = first + link.source;
        links[3 * n + 1] = next + link.target;
        links[3 * n + 2] = arcs_[link.arc].label;
        numbers[n] = link.arc;
        scores[n++] = link.score;
      }
      first = next;
    }
  }

 private:
  // The beam of a frame, given that of the frame before.
  static float NextBeam(float wide, float beam, int64_t active, int32_t min_active, int32_t max_active, bool near_end) {
    if (active > max_active) return near_end ? wide : float(std::min(wide, beam) * 0.8);
    if (near_end) min_active = std::max(min_active, max_active / 2);
    if (active >= min_active || active == 0) return 0.8 * wide + 0.2 * beam;
    return std::max(wide, beam) * 1.25;
  }

  // An arc this much below the best one of its frame is in no lattice.  One below the beam may lead to a state that
  // others have reached, but is then below that state's best by the lattice beam (and what rounding adds).
  float Margin(float wide) const { return wide + lattice_beam_ + 0.1f; }

  // The arcs from the states of a frame, and the best end among them; but for hopeless ones.
  void Expand(Frame &frame, float wide) {
    const int64_t count = frame.states.size;
    int64_t total = 0;
    const State *front = frame.states.begin();
    for (const State &s : frame.states) {
      total += splits_[s.state + 1] - splits_[s.state];
      if (s.forward > front->forward) front = &s;
    }
    candidates_.Reserve(total + 1);
    float best = kNone;
    const float margin = Margin(wide);
    if (count > 0) {
      for (int32_t a = splits_[front->state]; a < splits_[front->state + 1]; a++)
        best = std::max(best, front->forward + (row_[arcs_[a].label + 1] + arcs_[a].score));
    }
    Candidate *out = candidates_.begin();
    for (int64_t i = 0; i < count; i++) {
      if (i + 8 < count) __builtin_prefetch(arcs_ + splits_[frame.states[i + 8].state]);
      const State &s = frame.states[i];
      const float lowest = best - margin;
      const int32_t stop = splits_[s.state + 1];
      for (int32_t a = splits_[s.state]; a < stop; a++) {
        const Arc &arc = arcs_[a];
        const float score = row_[arc.label + 1] + arc.score, end = s.forward + score;
        best = std::max(best, end);
        *out = {int32_t(i), arc.target, a, score, end};
        out += end > lowest;
        __builtin_prefetch(&places_[arc.target]);
      }
    }
    candidates_.size = out - candidates_.begin();
    best_ = best;
  }

  // The states that arcs above the cutoff reach, in the order of those arcs, and the links to them.
  void Enter(Frame &frame, Frame &next, float wide) {
    const float cutoff = best_ - wide, lowest = best_ - Margin(wide);
    const int64_t total = candidates_.size;
    order_.Reserve(total + 1);
    int64_t above = 0;
    for (int64_t i = 0; i < total; i++) {
      order_[above] = i;
      above += candidates_[i].end > cutoff;
    }
    next.states.Reserve(above + 1);
    frame.links.Reserve(total + 1);  // before any place is set, in case there is no memory
    for (int64_t i = 0; i < above; i++) next.states[i].forward = kNone;
    int32_t reached = 0;
    for (int64_t i = 0; i < above; i++) {
      const Candidate &c = candidates_[order_[i]];
      int32_t place = places_[c.target];
      const bool fresh = place < 0;
      place = fresh ? reached : place;
      reached += fresh;
      places_[c.target] = place;
      State &s = next.states[place];
      s.state = c.target;
      s.forward = std::max(s.forward, c.end);
    }
    next.states.size = reached;
    int64_t kept = 0;
    for (int64_t i = 0; i < total; i++) {
      const Candidate &c = candidates_[i];
      const int32_t place = places_[c.target];
      frame.links[kept] = {c.source, place, c.arc, c.score};
      kept += (place >= 0) & (c.end > lowest);
    }
    frame.links.size = kept;
    for (const State &s : next.states) places_[s.state] = -1;
  }

  // Prune links and states of the frames from `begin` on; `begin` itself, to which links lead, keeps its states.
  void Prune(int64_t begin, int64_t end) {
    Buffer<State> &states = frames_[end].states;
    moved_.Reserve(states.size);
    for (int64_t i = 0; i < states.size; i++) {
      states[i].backward = -states[i].forward;
      moved_[i] = i;
    }
    for (int64_t t = end - 1; t >= begin; t--) {
      Frame &frame = frames_[t];
      const Buffer<State> &next = frames_[t + 1].states;
      for (State &s : frame.states) s.backward = s.state == final_ ? -s.forward : kNone;
      int64_t kept = 0;
      for (const Link &link : frame.links) {
        State &s = frame.states[link.source];
        const float backward = link.score + next[link.target].backward;
        if (!(backward + s.forward >= -lattice_beam_)) continue;
        s.backward = std::max(s.backward, backward);
        frame.links[kept++] = {link.source, moved_[link.target], link.arc, link.score};
      }
      frame.links.size = kept;
      if (t + 1 < end) Compact(frames_[t + 1]);
      moved_.Reserve(frame.states.size);
      int32_t place = 0;
      for (int64_t i = 0; i < frame.states.size; i++) {
        moved_[i] = place;
        place += t == begin || frame.states[i].backward != kNone;
      }
      if (t == begin) break;
      for (Link &link : frame.links) link.source = moved_[link.source];
    }
    Shrink(begin, end);
  }

  static void Compact(Frame &frame) {
    auto dead = [](const State &s) { return s.backward == kNone; };
    frame.states.size = std::remove_if(frame.states.begin(), frame.states.end(), dead) - frame.states.begin();
  }

  // Give the pruned frames memory of their size.
  void Shrink(int64_t begin, int64_t end) {
    for (int64_t t = std::max(begin, pruned_); t < end; t++) {
      Frame &frame = frames_[t];
      spare_.push_back({Buffer<State>(frame.states), Buffer<Link>(frame.links)});
      std::swap(frame, spare_.back());
    }
    pruned_ = end;
  }

  const Arc *arcs_ = nullptr;
  const int32_t *splits_;  // first arc of each state of the graph
  const int32_t final_;
  std::vector<int32_t> places_;  // place of each state of the graph in the next frame, or -1
  std::vector<float> row_;
  Buffer<Candidate> candidates_;
  Buffer<int32_t> order_, moved_;
  float best_ = kNone, lattice_beam_ = 0.0f;
  int64_t pruned_ = 0;
  std::vector<Frame> frames_, spare_;
};

}  // namespace

extern "C" {

void *search_new(const int32_t *splits, int32_t num_states) { return new (std::nothrow) Search(splits, num_states); }

void search_delete(void *search) { delete static_cast<Search *>(search); }

// The number of links of the lattice; -1: there is not enough memory.
int64_t search_run(void *search, const void *arcs, const float *scores, int64_t frames, int64_t columns, float scale,
                   float beam, float lattice_beam, int32_t min_active, int32_t max_active) {
  try {
    return static_cast<Search *>(search)->Run(static_cast<const Arc *>(arcs), scores, frames, columns, scale, beam,
                                              lattice_beam, min_active, max_active);
  } catch (const std::bad_alloc &) {
    return -1;
  }
}

void search_take(void *search, int32_t *links, int32_t *numbers, float *scores) {
  static_cast<Search *>(search)->Take(links, numbers, scores);
}

// The links of the best path, from the last to the first, and their number; of equal paths the one that k2 takes.
int64_t best_path(const int32_t *links, const float *scores, int64_t count, int32_t *path) {
  try {
    int32_t states = 1;
    for (int64_t n = 0; n < count; n++) states = std::max(states, links[3 * n + 1] + 1);
    std::vector<double> best(states, kNone);
    std::vector<int32_t> entered(states, -1);
    best[0] = 0.0;
    int32_t final = -1;
    for (int64_t n = 0; n < count; n++) {
      const int32_t source = links[3 * n], target = links[3 * n + 1];
      const double end = best[source] + scores[n];
      if (end < best[target]) continue;
      best[target] = end;
      entered[target] = n;
      if (links[3 * n + 2] == -1) final = target;
    }
    if (final < 0 || best[final] == kNone) return 0;
    int64_t length = 0;
    for (int64_t n = entered[final]; n >= 0; n = entered[links[3 * n]]) path[length++] = n;
    return length;
  } catch (const std::bad_alloc &) {
    return -1;
  }
}

}  // extern "C"
